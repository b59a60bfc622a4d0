"""The warm-up: what the application is asked, what counts as a failure, and what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from prefork.errors import ApplicationError, ConfigError
from prefork.http import warmup
from prefork.http.options import HttpOptions
from prefork.http.pages import Page
from prefork.http.server import HttpServer

Said = Callable[[], list[str]]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    # By its name: asyncio tells of an earlier test's task when that is collected, which may be now.
    caplog.set_level(logging.INFO, "prefork.http")
    return lambda: [
        f"{x.levelname.lower()}: {x.getMessage()}" for x in caplog.records if x.name == "prefork.http"
    ]


def warm(app: Any, *paths: str, strict: bool = False, timeout_s: float = 45.0, **more: Any) -> None:
    warmup.warm_up(
        app,
        [Page.of(path) for path in paths or ("/",)],
        is_wsgi=more.get("is_wsgi", False),
        root_path=more.get("root_path", ""),
        timeout_s=timeout_s,
        is_strict=strict,
    )


async def answer(send: Any, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b"some", "more_body": True})
    await send({"type": "http.response.body", "body": b"thing"})


class TestWhatIsAsked:
    def test_of_asgi(self, said: Said) -> None:
        """A GET without a body; when it has been answered the client is gone."""
        scopes, messages = [], []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            scopes.append(scope)
            messages.append(await receive())
            await answer(send)
            messages.append(await receive())

        warm(app, "/caf%C3%A9?a=1", root_path="/shop")
        (scope,) = scopes
        assert (scope["type"], scope["method"], scope["scheme"]) == ("http", "GET", "http")
        assert (scope["path"], scope["raw_path"]) == ("/shop/café", b"/caf%C3%A9")
        assert (scope["query_string"], scope["root_path"]) == (b"a=1", "/shop")
        assert dict(scope["headers"])[b"host"] == b"localhost"
        assert messages == [
            {"type": "http.request", "body": b"", "more_body": False},
            {"type": "http.disconnect"},
        ]
        assert said()[0].startswith("info: warm-up /caf%C3%A9?a=1: status 200 in ")

    def test_of_wsgi(self, said: Said) -> None:
        """The body is read to its end, and closed."""
        environs: list[dict[str, Any]] = []
        ends = []

        class Body:
            def __iter__(self) -> Iterator[bytes]:
                yield b"some"
                ends.append("read")

            def close(self) -> None:
                ends.append("closed")

        def app(environ: dict[str, Any], start_response: Any) -> Body:
            environs.append(environ)
            start_response("200 OK", [])
            return Body()

        warm(app, "https://shop.example:8443/caf%C3%A9?a=1", is_wsgi=True)
        (environ,) = environs
        assert environ["PATH_INFO"] == "café".encode().decode("latin-1").join(["/", ""])
        assert (environ["QUERY_STRING"], environ["wsgi.url_scheme"]) == ("a=1", "https")
        assert (environ["HTTP_HOST"], environ["SERVER_PORT"]) == ("shop.example:8443", "8443")
        assert environ["wsgi.input"].read() == b""
        assert ends == ["read", "closed"]
        assert "status 200" in said()[0]

    @pytest.mark.parametrize("text", ["", "path", "//host/path", "ftp://host/", "http://"])
    def test_what_is_no_path_is_refused(self, text: str) -> None:
        """Before anything is started."""
        with pytest.raises(ConfigError, match="must begin with a slash"):
            HttpOptions(warmup=(text,))

    def test_one_path_alone_is_refused(self) -> None:
        """It would be taken for its letters."""
        with pytest.raises(ConfigError, match=r"give it as \['/'\]"):
            HttpOptions(warmup="/")  # type: ignore[arg-type]

    @pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), "5"])
    def test_a_time_that_cannot_be_is_refused(self, seconds: Any) -> None:
        """It is a bound."""
        with pytest.raises(ConfigError, match="warmup_timeout_s"):
            HttpOptions(warmup_timeout_s=seconds)


async def raises(_scope: Any, _receive: Any, _send: Any) -> None:
    raise LookupError("no such thing")


async def exits(_scope: Any, _receive: Any, _send: Any) -> None:
    raise SystemExit(3)


async def fails(_scope: Any, _receive: Any, send: Any) -> None:
    await answer(send, 500)


async def silent(_scope: Any, _receive: Any, _send: Any) -> None:
    """Returns without an answer."""


async def waits(_scope: Any, _receive: Any, _send: Any) -> None:
    await asyncio.Event().wait()


async def blocks(_scope: Any, _receive: Any, _send: Any) -> None:
    try:
        threading.Event().wait()
    except Exception:
        raise AssertionError("an application's own handler must not see this") from None


async def delegates(_scope: Any, _receive: Any, _send: Any) -> None:
    await asyncio.gather(waits(1, 1, 1), asyncio.create_task(waits(1, 1, 1)))


FAILURES = pytest.mark.parametrize(
    ("app", "why"),
    [
        (raises, "LookupError: no such thing"),
        (exits, "SystemExit: 3"),
        (fails, "status 500"),
        (silent, "RuntimeError: it has not answered"),
        (waits, "no answer within 1 s"),
        (blocks, "no answer within 1 s"),
        (delegates, "no answer within 1 s"),
    ],
)


class TestFailures:
    @FAILURES
    def test_are_told_and_the_next_page_is_warmed(self, app: Any, why: str, said: Said) -> None:
        """A warm-up is a help, and no condition."""

        async def either(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/good":
                await answer(send)
            else:
                await app(scope, receive, send)

        # The suite's own bound for a test may be there.
        handler, is_running = (
            signal.getsignal(signal.SIGALRM),
            signal.getitimer(signal.ITIMER_REAL)[0] > 0,
        )
        warm(either, "/bad", "/good", timeout_s=1)
        first, second = said()
        assert first.startswith(f"warning: warm-up /bad failed: {why}")
        assert second.startswith("info: warm-up /good: status 200")
        assert signal.getsignal(signal.SIGALRM) is handler
        assert (signal.getitimer(signal.ITIMER_REAL)[0] > 0) == is_running

    @FAILURES
    def test_are_a_failed_start_if_it_is_strict(self, app: Any, why: str) -> None:
        """At the first of them."""
        with pytest.raises(ApplicationError, match=f"^warm-up /bad failed: {why}$") as caught:
            warm(app, "/bad", strict=True, timeout_s=1)
        if app is raises:
            assert "in raises" in caught.value.details
            assert "http/warmup.py" not in caught.value.details

    def test_of_wsgi(self) -> None:
        """It raises, and it blocks."""

        def bad(_environ: Any, _start_response: Any) -> Any:
            raise LookupError("no such thing")

        def slow(_environ: Any, _start_response: Any) -> Any:
            threading.Event().wait()

        with pytest.raises(ApplicationError, match="LookupError"):
            warm(bad, strict=True, is_wsgi=True)
        with pytest.raises(ApplicationError, match="no answer within"):
            warm(slow, strict=True, is_wsgi=True, timeout_s=1)

    def test_a_page_that_is_not_found_is_none(self, said: Said) -> None:
        """The application has answered: what it loads for that is loaded."""

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await answer(send, 404)

        warm(app, strict=True)
        assert "status 404" in said()[0]


class TestWhatIsLeft:
    def test_no_loop_and_no_task(self) -> None:
        """Tasks of the application's are cancelled, and may clean up; nothing runs afterwards."""
        ends = []

        async def goes_on() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ends.append("cleaned up")

        kept = []

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            kept.append((asyncio.create_task(goes_on()), asyncio.get_running_loop()))
            await asyncio.sleep(0)
            await answer(send)

        warm(app)
        ((task, loop),) = kept
        assert ends == ["cleaned up"]
        assert task.cancelled()
        assert loop.is_closed()
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()

    def test_no_loop_even_where_a_task_will_not_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It swallows its end: it is left behind, and the loop is closed all the same."""
        monkeypatch.setattr(warmup, "_LEAVE_S", 0.05)
        loops, tasks = [], []

        is_over = False

        async def stubborn() -> None:
            while not is_over:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            loops.append(asyncio.get_running_loop())
            tasks.append(asyncio.create_task(stubborn()))
            await asyncio.sleep(0)
            await answer(send)

        warm(app)
        assert loops[0].is_closed()
        # Ended by hand: asyncio tells of a task that is collected before its end, in whichever test that happens.
        is_over = True
        with contextlib.suppress(StopIteration):
            tasks[0].get_coro().throw(asyncio.CancelledError)
        tasks[0]._log_destroy_pending = False

    def test_no_context(self) -> None:
        """What the application sets for a request is not set afterwards."""
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")

        def app(_environ: Any, start_response: Any) -> list[bytes]:
            variable.set("of the warm-up")
            start_response("200 OK", [])
            return []

        warm(app, is_wsgi=True)
        assert variable.get() == "none"

    def test_no_thread_of_the_loop_s_own(self, said: Said) -> None:
        """`to_thread` has a pool, which ends with the loop."""

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await asyncio.to_thread(time.monotonic)
            await answer(send)

        before = set(threading.enumerate())
        warm(app)
        assert set(threading.enumerate()) <= before
        assert [line for line in said() if not line.startswith("info")] == []

    def test_threads_are_told_by_name(self, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
        """The zygote refuses to fork with them; here stands whence they come."""
        monkeypatch.setattr(warmup, "_LEAVE_S", 0.01)
        is_over = threading.Event()
        thread = threading.Thread(target=is_over.wait, name="a pool's")

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            thread.start()
            await answer(send)

        warm(app)
        is_over.set()
        thread.join()
        assert any("left threads alive" in line and "a pool's" in line for line in said())

    def test_connections_are_told(self, said: Said) -> None:
        """A database's, say: after the fork all workers would speak on one."""
        opened = []
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]

            async def app(_scope: Any, _receive: Any, send: Any) -> None:
                opened.append(socket.create_connection(("127.0.0.1", port)))
                await answer(send)

            warm(app)
            opened[0].close()
        assert any("left connections open" in line and f"127.0.0.1:{port}" in line for line in said())


class TestTheServer:
    def test_warms_up_once(self, said: Said) -> None:
        """At `prepare`, as often as that is called."""

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await answer(send)

        server = HttpServer(app, options=HttpOptions(warmup=("/a", "/b")))
        server.prepare()
        server.prepare()
        assert [line.split()[2] for line in said() if "warm-up" in line] == ["/a:", "/b:"]

    def test_without_pages_calls_nothing(self) -> None:
        """The default."""
        HttpServer(raises).prepare()
