"""The documentation's site; `make docs` builds it and fails on a broken link."""

from docutils import nodes
from sphinx import addnodes

project = "lm-eval-tofu"
author = "The lm-eval-tofu authors"
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


def index_options(app, doctree):
    """Put each option of the tables in options.md into the index, where the search finds it by its whole name."""
    if app.env.docname != "options":
        return
    for table in list(doctree.findall(nodes.table)):
        command = table.parent.next_node(nodes.title).astext()
        entries = []
        for row in table.findall(nodes.row):
            for name in row.next_node(nodes.entry).findall(nodes.literal):
                anchor = nodes.make_id(f"{command} {name.astext()}")
                row["ids"].append(anchor)
                entries.append(("single", name.astext(), anchor, "main", None))
        table.parent.insert(table.parent.index(table), addnodes.index(entries=entries))


def setup(app):
    """Register the above; Sphinx calls it."""
    app.connect("doctree-read", index_options)
