"""The lines of a page, and whether each is text or code (between fences)."""

import re

_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")


def lines_of(page):
    fence = ""
    for line in page.split("\n"):
        found = _FENCE.match(line)
        is_code = bool(fence or found)
        if found and (not fence or found[1].startswith(fence)):
            fence = "" if fence else found[1]
        yield line, is_code
