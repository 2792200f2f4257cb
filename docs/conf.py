"""Sphinx configuration: Markdown pages, one theme, no network resources."""

project = "kerve"
extensions = ["myst_parser"]
exclude_patterns = ["writers"]
html_theme = "furo"
html_title = "kerve"
html_copy_source = False
html_show_copyright = False
smartquotes = False  # keep the two hyphens of options

# Headings have the same anchors as on code hosts, so that links work in both.
myst_heading_anchors = 4
