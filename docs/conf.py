"""The documentation's site; `make docs` builds it and fails on a broken link."""

project = "lm-eval-tofu"
author = "lm-eval-tofu contributors"
extensions = ["myst_parser"]
exclude_patterns = ["nano/figures"]
html_theme = "furo"
html_title = "lm-eval-tofu"
html_show_copyright = False
html_copy_source = False
# Anchors as GitHub makes them, so that links work in both places.
myst_heading_anchors = 4
# The examples' model card and report are shown as they were written: their headings begin at any level.
suppress_warnings = ["myst.header"]
