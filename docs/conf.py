"""How Sphinx builds these pages: Markdown as it is, one theme, nothing from the network."""

project = "kerve"
extensions = ["myst_parser"]
exclude_patterns = ["writers"]
html_theme = "furo"
html_title = "kerve"
html_copy_source = False
html_show_copyright = False
smartquotes = False  # two hyphens are an option

# Headings have the anchors that a code host gives them, so that links work in both places.
myst_heading_anchors = 4
