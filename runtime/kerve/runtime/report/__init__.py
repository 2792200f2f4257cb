"""`kerve evaluate --report`: an HTML report of an evaluation, created in bounded memory.

observed.py     statistics of one output: the tasks that its labels allow, and its worst rows
classes.py binary.py regression.py    one task each: its counts and figures
confusions.py   confusion counts
curves.py       histograms of scores, and the curves computed from them
worst.py        the rows with the greatest loss, with their inputs
picture.py      an image as a data: URL
plot.py         curves, bars and matrices as SVG and HTML
page.py         the page
"""

from kerve.runtime.report.page import Report

__all__ = ["Report"]
