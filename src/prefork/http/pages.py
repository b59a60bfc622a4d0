"""What a warm-up asks for: paths, or whole addresses for applications that look at their host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from prefork.errors import ConfigError

_PORTS: Final = (("http", 80), ("https", 443))


@dataclass(frozen=True, slots=True)
class Page:
    """One request to make: a GET."""

    shown: str
    scheme: str
    host: str
    path: str
    query: str

    @classmethod
    def of(cls, text: str) -> Page:
        """From "/path?query", or "https://shop.example/path" for applications that look at their host. Raises ConfigError."""
        parts = urlsplit(text)
        if text.startswith("/") and not parts.netloc:
            return cls(text, "http", "localhost", parts.path, parts.query)
        if parts.scheme in dict(_PORTS) and parts.netloc:
            return cls(text, parts.scheme, parts.netloc, parts.path or "/", parts.query)
        raise ConfigError(f"warm-up path must begin with a slash, or be http://HOST/PATH, not {text!r}")

    @property
    def server(self) -> tuple[str, int]:
        """Name and port of its host."""
        parts = urlsplit(f"//{self.host}")
        return parts.hostname or "localhost", parts.port or dict(_PORTS)[self.scheme]
