"""Keys of any length: for the faces of other libraries, whose users know no bound."""

from __future__ import annotations

import hashlib
from typing import Final

from prefork.shared.store import KEY_BYTES

_DIGEST_BYTES: Final = 32


def fitted(key: str | bytes) -> bytes:
    """The key itself if it can be one, else a digest of it, which nobody can make collide."""
    encoded = key.encode(errors="surrogatepass") if isinstance(key, str) else key
    if 0 < len(encoded) <= KEY_BYTES:
        return encoded
    return b"\x01long:" + hashlib.blake2b(encoded, digest_size=_DIGEST_BYTES).hexdigest().encode()
