"""Links that lead out of docs/: to a file of the repository, or to a folder of it.

On a page of the repository they work as they are. On the site a file goes along with it, as something to look at; a folder
stays a name. Either has to be there, or the build fails.
"""

import re
from pathlib import Path

from lines import lines_of
from sphinx.application import Sphinx
from sphinx.util import logging

ROOT = Path(__file__).resolve().parents[2]
_LINK = re.compile(r"\[([^\[\]]+)\]\(\.\./([^)#\s]*)(?:#[^)\s]*)?\)")
logger = logging.getLogger(__name__)


def rewrite(_app, docname, source):
    source[0] = "\n".join(
        line if is_code else _LINK.sub(lambda link: _rewritten(docname, link), line)
        for line, is_code in lines_of(source[0])
    )


def _rewritten(docname, link):
    text, path = link[1], ROOT / link[2]
    if not path.exists():
        logger.warning("link to %s, which is not there", link[2], location=docname)
    if path.is_dir() or not path.exists():
        return text if text.strip("`").rstrip("/") == link[2].rstrip("/") else f"{text} (`{link[2]}`)"
    return f"[{text}](path:../{link[2]})"


def setup(app: Sphinx):
    app.connect("source-read", rewrite, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
