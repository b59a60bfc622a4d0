"""What the faces of other libraries have in common: keys of any length, and the errors that their users know."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
from collections.abc import Iterator
from typing import Final

from prefork.errors import NotSerialisableError
from prefork.shared.store import KEY_BYTES

_DIGEST_BYTES: Final = 32


def fitted(key: str | bytes) -> bytes:
    """The key itself if it can be one, else a digest of it, which nobody can make collide."""
    encoded = key.encode(errors="surrogatepass") if isinstance(key, str) else key
    if 0 < len(encoded) <= KEY_BYTES:
        return encoded
    return b"\x01long:" + hashlib.blake2b(encoded, digest_size=_DIGEST_BYTES).hexdigest().encode()


class UnpicklableError(NotSerialisableError, pickle.PicklingError):
    """A value cannot be pickled: as users of cachelib and Django catch it, and as our own do."""


@contextlib.contextmanager
def as_pickle_error() -> Iterator[None]:
    """Have a value that cannot be stored raise a `pickle.PickleError`, too."""
    try:
        yield
    except NotSerialisableError as error:
        raise UnpicklableError(str(error)) from error
