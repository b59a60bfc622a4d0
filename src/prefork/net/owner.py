"""Users and groups, by name or number, as the kernel takes them."""

from __future__ import annotations

from typing import Final

from prefork.errors import AddressError

LEAVE: Final = -1
"""chown(2): no change."""
_LAST_ID: Final = 2**32 - 2
"""uid_t is 32 bits, and its highest value stands for "no change" (chown(2))."""


def user_id(user: str | int | None) -> int:
    """The numeric id of `user`; LEAVE for None. Raises AddressError if there is no such user."""
    number = _numeric("user", user)
    if number is not None:
        return number
    # Only Unix has `pwd` and `grp`, and this module is imported everywhere.
    import pwd  # noqa: PLC0415

    try:
        return pwd.getpwnam(str(user)).pw_uid
    except KeyError as error:
        raise AddressError(f"no user {user!r} here: make the user, or give a numeric id") from error


def group_id(group: str | int | None) -> int:
    """The numeric id of `group`; LEAVE for None. Raises AddressError if there is no such group."""
    number = _numeric("group", group)
    if number is not None:
        return number
    import grp  # noqa: PLC0415

    try:
        return grp.getgrnam(str(group)).gr_gid
    except KeyError as error:
        raise AddressError(f"no group {group!r} here: make the group, or give a numeric id") from error


def _numeric(what: str, value: str | int | None) -> int | None:
    if value is None:
        return LEAVE
    if isinstance(value, str) and not (value.isascii() and value.isdecimal()):
        return None
    number = int(value)
    if not 0 <= number <= _LAST_ID:
        raise AddressError(f"{what} id {value} does not exist: ids are from 0 to {_LAST_ID}")
    return number
