from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.unit.listening import (
    LOOPBACK,
    Open,
    as_nobody,
    descriptors,
    ipv6_only,
    linux_only,
    refusal,
)

pytestmark = pytest.mark.usefixtures("no_descriptor_leaks")


class TestRefused:
    @pytest.mark.parametrize("reuseport", [False, True])
    def test_a_port_in_use(self, opened: Open, reuseport: bool) -> None:  # noqa: FBT001
        """Someone listens there: the error names the port and how to find who, and closes the rest."""
        with socket.create_server(("127.0.0.1", 0)) as holder:
            port = holder.getsockname()[1]
            before = descriptors()
            error = refusal(lambda: opened("127.0.0.2:0", f"127.0.0.1:{port}", reuseport=reuseport))
            assert descriptors() == before
        assert f"127.0.0.1:{port} is in use: stop the program" in str(error)
        assert isinstance(error.__cause__, OSError)

    @ipv6_only
    def test_both_families_on_one_port(self, opened: Open) -> None:
        """[::] takes IPv4 too; who wants 0.0.0.0 beside it is told how."""
        port = opened(":0").addresses[0].port
        assert f"tcp6://[::]:{port} for IPv6 alone" in str(refusal(lambda: opened(f"[::]:{port}")))
        opened(f"tcp6://[::]:{port}")

    @linux_only
    def test_a_privileged_port(self, opened: Open) -> None:
        """Port 80 without the right to it: the error says what gives it."""
        first_free = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
        if first_free <= 80:
            pytest.skip("everyone may bind port 80 here")
        with as_nobody():
            error = refusal(lambda: opened("127.0.0.1:80"))
        assert "no permission to bind 127.0.0.1:80: port 80 needs root or CAP_NET_BIND_SERVICE" in str(error)

    def test_an_address_of_another_machine(self, opened: Open) -> None:
        """192.0.2.1 is for documentation (RFC 5737), so nobody has it."""
        assert "no interface of this machine has 192.0.2.1" in str(refusal(lambda: opened("192.0.2.1:8080")))

    def test_an_unknown_host(self, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        """The resolver's refusal is passed on with advice; a label that no name may have, too."""

        def refuse(*args: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        error = refusal(lambda: opened("nowhere.invalid:80"))
        assert "cannot find host 'nowhere.invalid'" in str(error)
        assert "Name or service not known" in str(error)
        assert isinstance(error.__cause__, socket.gaierror)
        monkeypatch.undo()
        assert "cannot find host" in str(refusal(lambda: opened("x" * 70 + ":80")))

    def test_no_address_or_the_same_twice(self, opened: Open) -> None:
        """Nothing to listen on, and two addresses with one key, are mistakes to be told."""
        assert "no address to listen on" in str(refusal(opened))
        assert "127.0.0.1:0 is given twice" in str(refusal(lambda: opened(LOOPBACK, "127.0.0.1:00")))
