"""lighttpd's collection, `src/t/test_request.c`: heads of requests with the status that each must be given.

`run_http_request_parse(r, __LINE__, STATUS, "what it is", CONST_STR_LEN("…"));` where 0 is a request that is taken. They are
heads alone: a body that one of them announces never comes, so such a case is cut.

Pure.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from strangers.c_text import tokens
from strangers.case import Case, Heard

_PATH: Final = "src/t/test_request.c"
_BODY: Final = re.compile(rb"(?im)^(?:content-length|transfer-encoding):")


def read(folder: Path) -> list[Case]:
    """All cases of lighttpd's sources, unpacked in `folder`."""
    stream = list(tokens((folder / _PATH).read_text(encoding="utf-8")))
    found: list[Case] = []
    for at, part in enumerate(stream):
        if part != "run_http_request_parse" or stream[at + 4] != "__LINE__":
            continue
        status, name, raw = stream[at + 6], stream[at + 8], stream[at + 12]
        assert isinstance(name, bytes)
        assert isinstance(raw, bytes)
        heard = (Heard(),) if status == "0" else None
        said = f"{len(found) + 1}: {name.decode()}"
        found.append(Case(said, raw, heard, is_cut=status == "0" and bool(_BODY.search(raw))))
    return found
