"""`kerve evaluate --report`: one page about an evaluation, in bounded memory, for people.

observed.py     what is known of one output: the tasks that its labels allow, and its worst rows
classes.py binary.py regression.py    one task each: what is counted, and what is shown of it
confusions.py   which class was taken for which
curves.py       counts of scores, and the curves that they give
worst.py        the rows with the greatest loss, and what they look like
picture.py      an image as a data: address
plot.py         curves, bars and matrices as SVG and HTML
page.py         the page
"""

from kerve.runtime.report.page import Report

__all__ = ["Report"]
