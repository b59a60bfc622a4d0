"""The navigation of the site, from `NAVIGATION` in conf.py: put behind the text of index.md as it is read.

A page has one place in the menu, so it has one title: where a page has several, those behind the first are chapters of it.
"""

from lines import lines_of
from sphinx.application import Sphinx


def add_navigation(app, docname, source):
    source[0] = with_one_title(source[0])
    if docname != "index":
        return
    for caption, pages in app.config.NAVIGATION.items():
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(pages) + "\n```\n"


def with_one_title(page):
    lines, titles = [], 0
    for line, is_code in lines_of(page):
        titles += line.startswith("# ") and not is_code
        is_lower = titles > 1 and line.startswith("#") and not is_code
        lines.append(f"#{line}" if is_lower else line)
    return "\n".join(lines)


def setup(app: Sphinx):
    app.add_config_value("NAVIGATION", {}, "env")
    app.connect("source-read", add_navigation, priority=300)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
