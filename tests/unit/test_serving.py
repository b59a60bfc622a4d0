from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme

from prefork.errors import EXIT_USAGE, ConfigError, TLSConfigError
from prefork.net.material import TLSBytes, TLSFiles
from prefork.worker.serving import Served, TLSMaterial

FILES = TLSFiles("cert.pem", "key.pem")
EMBEDDED = TLSBytes(b"certificate", b"key")
PATIENCE_S = 45


class Book:
    """Who was called, with what."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def entry(self, name: str) -> Callable[..., Any]:
        def called(*arguments: Any) -> str:
            self.calls.append((name, *arguments))
            return name

        return called


class Plain:
    """A server with the one method that is needed."""

    def __init__(self, book: Book) -> None:
        self.serve = book.entry("serve")


class WithTLS(Plain):
    """One that speaks TLS by itself, as in the seed."""

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self.serve_tls = book.entry("serve_tls")
        self.serve_tls_embed = book.entry("serve_tls_embed")


class Whole(WithTLS):
    """One that takes several listeners, prepares and drains."""

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self.serve_many = book.entry("serve_many")
        self.prepare = book.entry("prepare")
        self.drain = book.entry("drain")


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def listeners() -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TLSMaterial]:
    """A real one, as files and as bytes."""
    folder = tmp_path_factory.mktemp("tls")
    issued = trustme.CA().issue_cert("localhost")
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return {
        "files": TLSFiles(str(cert), str(key)),
        "bytes": TLSBytes(cert.read_bytes(), key.read_bytes()),
    }


class TestWhoIsCalled:
    @pytest.mark.parametrize(
        ("tls", "name", "material"),
        [
            (None, "serve", ()),
            (FILES, "serve_tls", ("cert.pem", "key.pem")),
            (EMBEDDED, "serve_tls_embed", (b"certificate", b"key")),
        ],
    )
    def test_the_servers_method_for_the_kind(
        self,
        book: Book,
        listeners: list[socket.socket],
        tls: TLSMaterial | None,
        name: str,
        material: tuple[Any, ...],
    ) -> None:
        """The listener first, then the certificate, then the key (seed)."""
        served = Served(WithTLS(book))
        served.check(tls)
        assert served.load(tls).serve(listeners[:1]) == name
        assert book.calls == [(name, listeners[0], *material)]

    @pytest.mark.parametrize(
        ("tls", "name", "material"),
        [
            (None, "func", ()),
            (FILES, "tls_func", ("cert.pem", "key.pem")),
            (EMBEDDED, "embed_func", (b"certificate", b"key")),
        ],
    )
    @pytest.mark.parametrize("server", [None, Plain, WithTLS, Whole])
    def test_a_function_goes_before_any_server(
        self,
        book: Book,
        listeners: list[socket.socket],
        tls: TLSMaterial | None,
        name: str,
        material: tuple[Any, ...],
        server: Callable[[Book], Any] | None,
    ) -> None:
        """The seed's fields stand in for its methods."""
        served = Served(
            server(book) if server else None,
            book.entry("func"),
            book.entry("tls_func"),
            book.entry("embed_func"),
        )
        served.check(tls)
        served.load(tls).serve(listeners[:1])
        assert book.calls[-1] == (name, listeners[0], *material)

    def test_a_server_that_takes_several_is_called_once(
        self, book: Book, listeners: list[socket.socket]
    ) -> None:
        """With all of them, and without a context where there is no TLS."""
        Served(Whole(book)).load(None).serve(listeners)
        assert book.calls == [("prepare",), ("serve_many", listeners, None)]

    @pytest.mark.parametrize("kind", ["files", "bytes"])
    def test_over_tls_it_gets_a_context(
        self, book: Book, listeners: list[socket.socket], certificate: dict[str, TLSMaterial], kind: str
    ) -> None:
        """Made before the fork, so that session tickets resume on any worker; ALPN as the server says."""
        served = Served(Whole(book))
        service = served.load(certificate[kind])
        service.serve(listeners)
        service.serve(listeners)
        first, second = (call[2] for call in book.calls if call[0] == "serve_many")
        assert isinstance(first, ssl.SSLContext)
        assert first is second

    def test_a_certificate_that_cannot_be_read_is_told_at_the_load(self, book: Book) -> None:
        """Not by every worker."""
        with pytest.raises(TLSConfigError):
            Served(Whole(book)).load(FILES)

    def test_a_server_prepares_once_and_is_asked_to_drain(
        self, book: Book, listeners: list[socket.socket]
    ) -> None:
        """In the zygote, and in the worker."""
        service = Served(Whole(book)).load(None)
        assert book.calls == [("prepare",)]
        assert service.drain is not None
        service.drain()
        assert book.calls[-1] == ("drain",)

    def test_a_server_without_a_drain_has_none(self, book: Book) -> None:
        """The runtime sees to it then."""
        assert Served(Plain(book)).load(None).drain is None
        assert Served(serve_func=book.entry("func")).load(None).drain is None

    def test_to_check_calls_nobody(self, book: Book) -> None:
        """It runs in the master."""
        served = Served(Whole(book), book.entry("func"))
        for tls in (None, FILES, EMBEDDED):
            served.check(tls)
        assert book.calls == []


class TestErrors:
    @pytest.mark.parametrize(
        ("tls", "needed"),
        [(None, "serve_func="), (FILES, "serve_tls_func="), (EMBEDDED, "serve_tls_embed_func=")],
    )
    @pytest.mark.parametrize("server", [None, object(), "app"])
    def test_nothing_to_serve_with(self, tls: TLSMaterial | None, needed: str, server: object) -> None:
        """One line that names what to give."""
        with pytest.raises(ConfigError, match=needed) as caught:
            Served(server).check(tls)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == EXIT_USAGE

    @pytest.mark.parametrize("tls", [FILES, EMBEDDED])
    def test_a_server_without_tls_is_not_served_plainly_instead(self, book: Book, tls: TLSMaterial) -> None:
        """Who asked for TLS must not get less; nor does a plain function stand in."""
        with pytest.raises(ConfigError, match="nothing to serve TLS with"):
            Served(Plain(book)).check(tls)
        with pytest.raises(ConfigError, match="nothing to serve TLS with"):
            Served(serve_func=book.entry("func")).check(tls)


def waits_for_all(count: int) -> tuple[Callable[..., None], threading.Barrier]:
    """A plain function that returns when it has been called so many times at once."""
    barrier = threading.Barrier(count, timeout=PATIENCE_S)

    def serve(*_arguments: Any) -> None:
        barrier.wait()

    return serve, barrier


class Meeting:
    """A coroutine function that returns when it has been called so many times at once; for each form of it."""

    def __init__(self, count: int) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self._count = count
        self._all_here = asyncio.Event()

    async def serve(self, *arguments: Any) -> None:
        self.seen.append(arguments)
        if len(self.seen) == self._count:
            self._all_here.set()
        await asyncio.wait_for(self._all_here.wait(), PATIENCE_S)

    __call__ = serve


class TestSeveralListeners:
    def test_plain_functions_serve_them_in_threads(self, listeners: list[socket.socket]) -> None:
        """All at once; the first in the thread that called, which is the main one."""
        serve, _ = waits_for_all(3)
        Served(serve_func=serve).load(None).serve(listeners)
        for thread in threading.enumerate():
            if thread is not threading.current_thread():
                thread.join(PATIENCE_S)

    @pytest.mark.parametrize("form", ["method", "object"])
    @pytest.mark.parametrize(
        ("tls", "material"),
        [(None, ()), (FILES, ("cert.pem", "key.pem")), (EMBEDDED, (b"certificate", b"key"))],
    )
    def test_coroutines_serve_them_together(
        self, listeners: list[socket.socket], tls: TLSMaterial | None, material: tuple[Any, ...], form: str
    ) -> None:
        """On one loop: an async function is one with its TLS material too, and so is an object with async __call__."""

        async def serve_all() -> Meeting:
            meeting = Meeting(len(listeners))
            function: Any = meeting.serve if form == "method" else meeting
            service = Served(None, function, function, function).load(tls)
            await asyncio.wait_for(service.serve(listeners), PATIENCE_S)
            return meeting

        assert asyncio.run(serve_all()).seen == [(listener, *material) for listener in listeners]

    def test_one_listener_needs_no_thread(self, listeners: list[socket.socket]) -> None:
        """It is served where it stands, and what comes back is passed on."""
        served_in = []

        def serve(_listener: socket.socket) -> str:
            served_in.append(threading.current_thread())
            return "done"

        assert Served(serve_func=serve).load(None).serve(listeners[:1]) == "done"
        assert served_in == [threading.current_thread()]

    def test_one_coroutine_that_raises_ends_the_others(self, listeners: list[socket.socket]) -> None:
        """What it raised comes out; a worker that serves half of its addresses would be a trap."""

        async def serve(listener: socket.socket) -> None:
            if listener is listeners[1]:
                raise OSError("accept failed")
            await asyncio.Event().wait()

        async def serve_all() -> None:
            result: Awaitable[Any] = Served(serve_func=serve).load(None).serve(listeners)
            await asyncio.wait_for(result, PATIENCE_S)

        with pytest.raises(OSError, match="accept failed"):
            asyncio.run(serve_all())

    def test_one_thread_that_raises_ends_the_worker(self, listeners: list[socket.socket]) -> None:
        """The main thread is told by TERM, as by the master, and raises what the other raised."""
        told = threading.Event()
        before = signal.signal(signal.SIGTERM, lambda *_: told.set())

        def serve(listener: socket.socket) -> None:
            if listener is listeners[1]:
                raise OSError("accept failed")
            assert told.wait(PATIENCE_S)

        try:
            with pytest.raises(OSError, match="accept failed"):
                Served(serve_func=serve).load(None).serve(listeners)
        finally:
            signal.signal(signal.SIGTERM, before)
            for thread in threading.enumerate():
                if thread is not threading.current_thread():
                    thread.join(PATIENCE_S)

    def test_a_server_of_one_listener_is_called_for_each(
        self, book: Book, listeners: list[socket.socket]
    ) -> None:
        """`serve(listener)`, the seed's form, with several addresses."""
        Served(Plain(book)).load(None).serve(listeners)
        for thread in threading.enumerate():
            if thread is not threading.current_thread():
                thread.join(PATIENCE_S)
        assert sorted(call[1].fileno() for call in book.calls) == sorted(x.fileno() for x in listeners)


def test_a_server_over_files_with_a_path(
    book: Book, tmp_path: Path, listeners: Sequence[socket.socket]
) -> None:
    """What was given is what the server gets; nothing is opened for it."""
    material = TLSFiles(str(tmp_path / "no-such-cert.pem"), str(tmp_path / "no-such-key.pem"))
    Served(WithTLS(book)).load(material).serve(listeners[:1])
    assert book.calls[0][2:] == (material.cert_file, material.key_file)
