"""The composition root: the only place, with the command line, that sees search and trainers."""
