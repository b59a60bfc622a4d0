"""The dashboard: three files made into one page that loads nothing, and the policy that holds it to that.

A browser runs the page's one script and uses its one style because the policy names their hashes; whatever else might find
its way into the page, it does not run (CSP level 3). What the page shows is written as text, never as markup.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources


class Page:
    """The page as it is sent. Made once."""

    def __init__(self) -> None:
        folder = resources.files(__name__)
        style, script = ((folder / name).read_text("utf-8") for name in ("style.css", "script.js"))
        page = (folder / "page.html").read_text("utf-8")
        self.html = page.replace("/* style.css */", style).replace("/* script.js */", script)
        self._policy = (
            f"default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
            f"script-src '{_hash(script)}'; style-src '{_hash(style)}'"
        )

    def policy(self, ancestors: str) -> str:
        """The value of content-security-policy; `ancestors` are those who may show the page in a frame."""
        return f"{self._policy}; frame-ancestors {ancestors}"


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
