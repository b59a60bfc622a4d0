"""Where the admin process listens: loopback, unless somebody says otherwise."""

from __future__ import annotations

from prefork.errors import AddressError, ConfigError
from prefork.net.address import Address, parse_address

LOOPBACK = "127.0.0.1"


def admin_address(text: str) -> Address:
    """The address of the option: "9090" and ":9090" are loopback's, "0.0.0.0:9090" is everybody's. Raises ConfigError."""
    port = text.removeprefix(":")
    try:
        return parse_address(f"{LOOPBACK}:{port}" if port.isascii() and port.isdecimal() else text)
    except AddressError as error:
        raise ConfigError(f"admin: {error}") from error
