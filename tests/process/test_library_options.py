"""Defaults, the order of arguments, and what is refused before anything is started."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefork import (
    AddressError,
    ConfigError,
    OnlyReuseportOnWindowsError,
    Prefork,
    Server,
    TLSConfigError,
    drain_orphan,
)
from prefork.cpus import usable_cpus
from tests.process.library import make_certificate, run

Script = Callable[..., Path]


def nothing(*_: object) -> None:
    """A serve function that is never called."""


def test_the_defaults_are_the_seeds() -> None:
    """Every field of the seed has its default here; what we add is harmless or safe."""
    plain = Prefork()
    assert plain.network == "tcp4"
    assert plain.reuseport is False
    assert plain.workers is None
    assert plain.worker_count() == usable_cpus()
    assert plain.threshold() == max(1, usable_cpus() // 2)
    assert plain.recover_window_s == 60
    assert plain.on_master_death is drain_orphan
    for name in (
        "server",
        "serve_func",
        "serve_tls_func",
        "serve_tls_embed_func",
        "on_child_spawn",
        "on_master_ready",
        "on_child_recover",
        "command_producer",
        "logger",
        "start_method",
    ):
        assert getattr(plain, name) is None, name


@pytest.mark.parametrize(("workers", "threshold"), [(1, 1), (2, 1), (3, 1), (4, 2), (9, 4)])
def test_the_threshold_is_half_the_workers(workers: int, threshold: int) -> None:
    """Seed: max(1, GOMAXPROCS / 2); what is given is taken, 0 and infinity too."""
    assert Prefork(workers=workers).threshold() == threshold
    assert Prefork(workers=workers, recover_threshold=0).threshold() == 0
    assert Prefork(workers=workers, recover_threshold=math.inf).threshold() == math.inf


def test_a_server_comes_first_and_without_its_name() -> None:
    """`Prefork(server)`, as `prefork.New(s)`; everything else by keyword; fields may be set later."""
    server = Server(lambda environ, start_response: [])
    fleet = Prefork(server)
    assert fleet.server is server
    with pytest.raises(TypeError):
        Prefork(server, nothing)  # type: ignore[call-arg, arg-type]
    fleet.reuseport = True
    assert fleet.reuseport


@pytest.mark.parametrize(
    "wrong",
    [
        {"workers": 0},
        {"workers": -1},
        {"workers": 1.5},
        {"workers": True},
        {"network": "udp"},
        {"start_method": "spawn"},
        {"recover_threshold": -1},
        {"recover_threshold": math.nan},
        {"recover_window_s": -1},
        {"recover_interval_s": "1"},
        {"shutdown_grace_period_s": -0.1},
        {"boot_timeout_s": 0},
        {"backlog": 0},
        {"serve_func": None},
    ],
)
def test_what_cannot_work_is_refused_in_one_line(wrong: dict[str, Any]) -> None:
    """Before anything is opened or started, and with the option's name."""
    name = next(iter(wrong))
    with pytest.raises(ConfigError, match=name) as caught:
        Prefork(**{"serve_func": nothing, **wrong}).listen_and_serve("127.0.0.1:0")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "addr", ["nonsense", "127.0.0.1:99999", "[::1]:0", "", "127.0.0.1:http", [], ["127.0.0.1:0", ""]]
)
def test_a_bad_address_is_refused_in_one_line(addr: Any) -> None:
    """Nothing is left open, whichever of several is wrong."""
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError) as caught:
        Prefork(serve_func=nothing).listen_and_serve(addr)
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_port_in_use_is_told() -> None:
    """An AddressError with the port in it."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(AddressError, match=str(port)):
            Prefork(serve_func=nothing).listen_and_serve(f"127.0.0.1:{port}")


def test_more_addresses_than_a_worker_can_be_given(tmp_path: Path) -> None:
    """One message carries them all to it, and the kernel has a bound for that."""
    addresses = [f"unix:{tmp_path / str(number)}" for number in range(253)]
    with pytest.raises(ConfigError, match=r"253 addresses .* which is 252"):
        Prefork(serve_func=nothing).listen_and_serve(addresses)
    assert not list(tmp_path.iterdir())


def test_tls_needs_something_that_speaks_it() -> None:
    """A plain serve_func does not serve TLS in silence, and the other way round."""
    with pytest.raises(ConfigError, match="serve_tls_func"):
        Prefork(serve_func=nothing).listen_and_serve_tls("127.0.0.1:0", "key", "cert")
    with pytest.raises(ConfigError, match="serve_tls_embed_func"):
        Prefork(serve_func=nothing).listen_and_serve_tls_embed("127.0.0.1:0", b"", b"")
    with pytest.raises(ConfigError, match="serve_func"):
        Prefork(serve_tls_func=nothing).listen_and_serve("127.0.0.1:0")


def test_tls_that_cannot_work_is_told_before_a_start() -> None:
    """Missing files, and bytes that are no PEM."""
    with pytest.raises(TLSConfigError, match=r"no-key|no-cert"):
        Prefork(serve_tls_func=nothing).listen_and_serve_tls("127.0.0.1:0", "no-key", "no-cert")
    with pytest.raises(TLSConfigError):
        Prefork(serve_tls_embed_func=nothing).listen_and_serve_tls_embed("127.0.0.1:0", b"x", b"y")


def test_bytes_are_asked_for_where_text_is_given() -> None:
    """PEM as text is a likely mistake: it is named, not a TypeError from within."""
    with pytest.raises(ConfigError, match="bytes"):
        Prefork(serve_tls_embed_func=nothing).listen_and_serve_tls_embed("127.0.0.1:0", "x", "y")  # type: ignore[arg-type]


@pytest.mark.parametrize("reuseport", [True, False])
def test_windows_serves_reuseport_only(monkeypatch: pytest.MonkeyPatch, *, reuseport: bool) -> None:
    """Seed: ErrOnlyReuseportOnWindows."""
    monkeypatch.setattr("prefork.prefork.sys.platform", "win32")
    expected = ConfigError if reuseport else OnlyReuseportOnWindowsError
    with pytest.raises(expected, match="windows"):
        Prefork(serve_func=nothing, reuseport=reuseport).listen_and_serve("127.0.0.1:0")


THREADS = """
    from prefork import Prefork, is_child
    from story import *

    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="the-poller")
    thread.start()
    before = sorted(os.listdir("/proc/self/fd"))
    tell(lambda: Prefork(serve_func=serve, start_method="fork").listen_and_serve(ANY_PORT))
    say(f"clean: {sorted(os.listdir('/proc/self/fd')) == before}, child: {is_child()}")
    done.set()
"""


def test_living_threads_are_named(python_script: Script) -> None:
    """A fork would copy their locks locked: refused, with their names, and the listener is closed again."""
    with run(python_script(THREADS)) as fleet:
        fleet.wait_for("raised ForkWithThreadsError: .*the-poller")
        fleet.wait_for("clean: True, child: False")
        assert fleet.wait() == 0
        assert not fleet.find_all("spawn")


STUB = """
    from prefork import Prefork
    from story import *

    def stub(name):
        def serve_stub(listener, *given):
            say(f"{name}: {isinstance(listener, socket.socket)} {given}")
            serve(listener)
        return serve_stub

    fleet = Prefork(serve_func=stub("plain"), serve_tls_func=stub("tls"), serve_tls_embed_func=stub("embed"),
                    workers=1, start_method=METHOD)
    key, cert = sys.argv[3:]
    data = {name: open(name, "rb").read() for name in (key, cert)}
    {
        "plain": lambda: fleet.listen_and_serve(ANY_PORT),
        "tls": lambda: fleet.listen_and_serve_tls(ANY_PORT, key, cert),
        "tls-by-keyword": lambda: fleet.listen_and_serve_tls(addr=ANY_PORT, cert_file=cert, cert_key=key),
        "embed": lambda: fleet.listen_and_serve_tls_embed(ANY_PORT, data[cert], data[key]),
        "embed-by-keyword": lambda: fleet.listen_and_serve_tls_embed(
            addr=ANY_PORT, key_data=data[key], cert_data=data[cert]),
    }[sys.argv[2]]()
"""


@pytest.mark.parametrize(
    ("method", "way"),
    [
        ("fork", "plain"),
        ("fork", "tls"),
        ("exec", "tls-by-keyword"),
        ("exec", "embed"),
        ("fork", "embed-by-keyword"),
    ],
)
def test_what_each_serve_function_is_given(
    python_script: Script, tmp_path: Path, method: str, way: str
) -> None:
    """Key before certificate goes in, certificate before key comes out (seed: TestListenAndServeStubChildPath)."""
    cert, key, _ = make_certificate(tmp_path)
    given = {
        "plain": (),
        "tls": (str(cert), str(key)),
        "embed": (cert.read_bytes(), key.read_bytes()),
    }[way.removesuffix("-by-keyword")]
    with run(python_script(STUB), method, way, str(key), str(cert)) as fleet:
        said = fleet.wait_for(r"^(plain|tls|embed): True (.*)$")
        assert said[1] == way.removesuffix("-by-keyword")
        assert said[2] == str(given)
        assert fleet.stop() == 0
