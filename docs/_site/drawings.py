"""Drawings (docs/img/drawn/*.svg) stand in the page itself, not in an <img>: so they have the page's colours, light and dark."""

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform


class Inline(SphinxPostTransform):
    default_priority = 5  # before Sphinx copies pictures
    formats = ("html",)

    def run(self, **_kwargs):
        for image in list(self.document.findall(nodes.image)):
            uri = image.get("uri", "")
            if "img/drawn/" in uri and uri.endswith(".svg"):
                svg = Path(self.app.srcdir, uri).read_text(encoding="utf-8")
                image.replace_self(nodes.raw("", f'<div class="drawing">{svg}</div>', format="html"))


def setup(app: Sphinx):
    app.add_post_transform(Inline)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
