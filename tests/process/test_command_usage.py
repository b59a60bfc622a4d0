"""The command with words that cannot work: status 2, one line that says what to do, no traceback."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.apps import serving
from tests.process.harness import Fleet, run_to_end
from tests.process.library import make_certificate

USAGE = 2
REFUSED_WITHIN_S = 10.0
PORTS_FOR_ALL = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
needs_setpriv = pytest.mark.skipif(
    shutil.which("setpriv") is None, reason="no setpriv to drop privileges with"
)


def _refused(*arguments: str, why: str, prefix: tuple[str, ...] = ()) -> None:
    """It ends with status 2, and the last thing it says is one line with `why` in it; no traceback."""
    with Fleet([*prefix, sys.executable, "-m", "prefork", *arguments]) as fleet:
        status = fleet.wait(REFUSED_WITHIN_S)
    assert status == USAGE, fleet.output
    assert "Traceback" not in fleet.output
    assert why in fleet.lines[-1], fleet.output
    assert "serving" not in fleet.output
    errors = [line for line in fleet.lines if "rror" in line]
    assert len(errors) == 1, fleet.output


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("8080", "write ':8080'"),
        ("localhost", "has no port"),
        ("127.0.0.1:99999", "too high"),
        ("127.0.0.1:http", "write a number"),
        ("::1:8080", "brackets"),
        ("http://127.0.0.1:8080", "is a URL"),
        ("no-such-host.invalid:8080", "check the name"),
        ("192.0.2.1:8080", "no interface of this machine"),
        ("unix:", "no path"),
        ("unix:/no/such/folder/socket", "make it first"),
        ("fd://99", "not open"),
        ("fd://x", "names no descriptor"),
        ("", "empty"),
    ],
)
def test_an_address_that_cannot_be(address: str, why: str) -> None:
    """What is wrong with it, and what to write instead."""
    _refused(*serving("web", bind=address), why=why)


def test_the_same_address_twice() -> None:
    """Nobody means that."""
    _refused(*serving("web", "--bind", "127.0.0.1:0"), why="given twice")


@pytest.mark.parametrize("sharing", [(), ("--reuseport",)], ids=["shared", "reuseport"])
@pytest.mark.parametrize("is_shareable", [False, True])
def test_a_port_in_use(sharing: tuple[str, ...], *, is_shareable: bool) -> None:
    """Somebody has it already: with --reuseport too, and even if that somebody would share it."""
    with socket.socket() as other:
        if is_shareable:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        _refused(*serving("web", *sharing, bind=f"127.0.0.1:{port}"), why=f"127.0.0.1:{port} is in use")


@needs_setpriv
@pytest.mark.skipif(
    int(PORTS_FOR_ALL.read_text()) <= 81 if PORTS_FOR_ALL.exists() else True,
    reason="no privileged ports here",
)
def test_a_privileged_port() -> None:
    """Without the capability: which one is missing, and the two ways around it."""
    prefix = ("setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service")
    _refused(*serving("web", bind="127.0.0.1:81"), why="needs root or CAP_NET_BIND_SERVICE", prefix=prefix)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--workers", "-1"), "workers must be a whole number from 1"),
        (("--workers", "0"), "workers must be a whole number from 1"),
        (("--workers", "many"), "'many' is not a valid integer"),
        (("--backlog", "0"), "backlog must be a whole number from 1"),
        (("--boot-timeout", "0"), "boot_timeout_s must be more than 0"),
        (("--boot-timeout", "nan"), "boot_timeout_s must be more than 0"),
        (("--grace-period", "-1"), "shutdown_grace_period_s must be 0 or more"),
        (("--recover-threshold", "-1"), "recover_threshold must be 0 or more"),
        (("--recover-window", "-1"), "recover_window_s must be 0 or more"),
        (("--recover-interval", "-1"), "recover_interval_s must be 0 or more"),
        (("--start-method", "spawn"), "'spawn' is not one of"),
        (("--interface", "cgi"), "'cgi' is not one of"),
        (("--server", "apache"), "'apache' is not one of"),
        (("--log-level", "loud"), "'loud' is not one of"),
        (("--log-file", "/no/such/folder/log"), "cannot be opened"),
        (("--unix-mode", "rw"), "is not a number in octal"),
        (("--unix-mode", "689"), "is not a number in octal"),
        (("--no-such-option",), "No such option"),
        (("--certfile", "cert.pem"), "both --certfile and --keyfile"),
        (("--keyfile", "key.pem"), "both --certfile and --keyfile"),
        (("another:app",), "unexpected extra argument"),
    ],
)
def test_an_option_that_cannot_be(words: tuple[str, ...], why: str) -> None:
    """Which one, and what it may be."""
    _refused(*serving("web", *words), why=why)


@pytest.mark.parametrize("mode", ["-1", "77777"])
def test_permissions_that_cannot_be(tmp_path: Path, mode: str) -> None:
    """A number in octal, and yet no permissions."""
    words = ("--unix-mode", mode)
    _refused(*serving("web", *words, bind=f"unix:{tmp_path / 'socket'}"), why="mode")
    assert not (tmp_path / "socket").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--unix-user", "no-such-user"), "no user 'no-such-user'"),
        (("--unix-group", "no-such-group"), "no group 'no-such-group'"),
    ],
)
def test_an_owner_that_cannot_be(tmp_path: Path, words: tuple[str, ...], why: str) -> None:
    """Nothing is left behind either."""
    _refused(*serving("web", *words, bind=f"unix:{tmp_path / 'socket'}"), why=why)
    assert not (tmp_path / "socket").exists()


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("web", "MODULE:ATTR"),
        ("web:", "MODULE:ATTR"),
        (":app", "MODULE:ATTR"),
        pytest.param(
            "web.py:app",
            "name the module, not its file: web:app",
        ),
        ("./web.py", "name the module, not its file: web:app"),
        ("web:app()", "MODULE:ATTR"),
    ],
)
def test_a_target_that_is_none(target: str, why: str) -> None:
    """Before anything is imported."""
    _refused(target, "--bind", "127.0.0.1:0", why=why)


def test_no_target_at_all() -> None:
    """The commonest mistake of all."""
    status, output = run_to_end()
    assert status == USAGE
    assert "MODULE:ATTR" in output
    assert "Traceback" not in output


TROUBLES = {
    "no such certificate": "does not exist",
    "no such key": "does not exist",
    "a folder": "cannot be read",
    "not PEM": "holds no certificate in PEM",
    "key not PEM": "holds no private key in PEM",
    "swapped": "swapped",
    "of two pairs": "is not the key of",
    "cut off": "damaged|cannot be read",
    "encrypted": "encrypted",
}


def _material(case: str, folder: Path) -> tuple[Path, Path]:
    """Files for one of `TROUBLES`: what is given as certificate, and what as key."""
    cert, key, _ = make_certificate(folder)
    other = folder / "other"
    if case == "no such certificate":
        return other, key
    if case == "no such key":
        return cert, other
    if case == "a folder":
        return folder, key
    if case == "swapped":
        return key, cert
    if case == "of two pairs":
        other.mkdir()
        return cert, make_certificate(other)[1]
    if case == "encrypted":
        words = ["openssl", "pkey", "-in", str(key), "-aes256", "-passout", "pass:secret", "-out", str(other)]
        subprocess.run(words, check=True)
        return cert, other
    if case == "key not PEM":
        other.write_bytes(b"\x30\x82nothing to see")
        return cert, other
    other.write_bytes(cert.read_bytes()[:200] if case == "cut off" else b"\x30\x82nothing to see")
    return other, key


@pytest.mark.parametrize("case", TROUBLES)
def test_a_certificate_that_cannot_be_used(tmp_path: Path, case: str) -> None:
    """Told by the master, once, not by every worker; and no byte of the key is told."""
    cert, key = _material(case, tmp_path)
    status, output = run_to_end(*serving("web", "--certfile", str(cert), "--keyfile", str(key)))
    assert status == USAGE, output
    assert "Traceback" not in output
    assert len(output.splitlines()) == 1, output
    assert any(word in output for word in TROUBLES[case].split("|")), output
    assert "PRIVATE KEY-----\n" not in output


@needs_setpriv
def test_a_certificate_that_may_not_be_read(tmp_path: Path) -> None:
    """The commonest trouble with keys: their owner is root and the server is not."""
    cert, key, _ = make_certificate(tmp_path)
    key.chmod(0o000)
    prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override")
    words = ("--certfile", str(cert), "--keyfile", str(key))
    _refused(*serving("web", *words), why="is not readable for this user", prefix=prefix)
