"""Errors that are the user's to mend: the command line prints them without a traceback."""


class UserError(Exception):
    """Something that was given cannot work.

    The message says what was given, what was expected and what to do.
    """


class BadConfig(UserError):
    """A settings file, or an override of it, is not valid."""


class BadData(UserError):
    """A data set cannot be used as it is."""


class BadExperiment(UserError):
    """An experiment directory is missing, taken, damaged or not writable."""


class NotEnoughResources(UserError):
    """The cluster can never satisfy what a trial asks for."""


class BadCluster(UserError):
    """Machines of the cluster cannot run trials; the message has a line for each problem."""


class SearchStopped(UserError):
    """A search ended before its last round; what was finished is kept and can be resumed."""


class TrainingStopped(UserError):
    """A training cannot go on; its checkpoints are kept."""
