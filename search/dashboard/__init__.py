"""The page that shows experiments: served while they run, and written as one file at their end.

data, policy    what the page shows, as plain values that JSON can hold
page            the HTML around it: one self-contained file, or the shell of the live page
server          the live page's server: reads folders, answers GET, nothing else
static/         style and scripts, the same for both
"""
