"""The navigation of the site, from `NAVIGATION` in conf.py: put behind the text of index.md as it is read."""

from sphinx.application import Sphinx


def add_navigation(app, docname, source):
    if docname != "index":
        return
    for caption, pages in app.config.NAVIGATION.items():
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(pages) + "\n```\n"


def setup(app: Sphinx):
    app.add_config_value("NAVIGATION", {}, "env")
    app.connect("source-read", add_navigation)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
