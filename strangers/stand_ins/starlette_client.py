"""Starlette's TestClient over a real socket: a plugin for pytest that has each client talk to a live server of ours.

Theirs calls the application itself. Here the application is served by prefork in a thread, the client connects to it on
loopback, and what the application raises is handed to the client as theirs does, so that tests may expect it.

What the wire does not tell, it cannot tell: the client's address is a real one, and a WebSocket that is closed before it
is accepted is a 403 without a code.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import starlette.testclient as theirs
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from strangers import live

httpx: Any = theirs.httpx  # type: ignore[attr-defined]  # whichever of its two names they have chosen
LIMIT_S = 10.0

_open: list[contextlib.ExitStack] = []
"""Servers of the test that runs; nothing else may end them, for most tests never close their client."""


class Watched:
    """An application, and what it is doing: how many calls run, what they raised, whether it has started."""

    def __init__(self, app: Any, state: dict[str, Any]) -> None:
        self._app = app
        self._state = state
        self._changed = threading.Condition()
        self._running = 0
        self.raised: list[BaseException] = []
        self.started = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        is_request = scope["type"] != "lifespan"
        if not is_request:
            scope["state"] = self._state
            send = self._noting_start(send)
        with self._changed:
            self._running += is_request
        try:
            await self._app(scope, receive, send)
        except BaseException as error:
            self.raised.append(error)
            raise
        finally:
            if not is_request:
                self.started.set()
            with self._changed:
                self._running -= is_request
                self._changed.notify_all()

    def _noting_start(self, send: Any) -> Any:
        async def noted(message: Any) -> None:
            await send(message)
            if message["type"].startswith("lifespan.startup."):
                self.started.set()

        return noted

    def rest(self) -> None:
        """Wait until no request runs, background tasks included."""
        with self._changed:
            self._changed.wait_for(lambda: self._running == 0, LIMIT_S)

    def raise_what_it_raised(self) -> None:
        """As the TestClient does."""
        if self.raised:
            raise self.raised.pop(0)


class LiveClient(theirs.TestClient):
    """A TestClient whose application is behind a server."""

    def __init__(self, app: Any, *args: Any, **options: Any) -> None:
        self.__dict__["_raises"] = options.get("raise_server_exceptions", True)
        self.__dict__["_root_path"] = options.get("root_path", "")
        super().__init__(app, *args, **options)
        self.watched = Watched(self.app, self.app_state)
        self._port = 0
        self._stack = contextlib.ExitStack()
        _open.append(self._stack)
        self._transport = Transport(self)
        self._stack.callback(self._transport.close)

    def serve(self, lifespan: str = "off") -> int:
        """The server's port; it is started the first time."""
        if not self._port:
            listener = self._stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            given = {"lifespan": lifespan, "root_path": self._root_path.rstrip("/")}
            self._stack.enter_context(live.in_thread(self.watched, "asgi", given, listener))
            self._port = listener.getsockname()[1]
        return self._port

    def __enter__(self) -> Self:
        self.serve("on")
        assert self.watched.started.wait(LIMIT_S), "the lifespan does not start"
        if self.watched.raised:
            # That it does not start is the server's to raise, too; what the application raised comes before.
            with contextlib.suppress(Exception):
                self._stack.close()
            self.watched.raise_what_it_raised()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._port = 0
        try:
            self._stack.close()
        finally:
            self.watched.raise_what_it_raised()

    def settle(self) -> None:
        """After an answer: wait for the application, and raise what it raised."""
        self.watched.rest()
        if self._raises:
            self.watched.raise_what_it_raised()
        self.watched.raised.clear()

    def websocket_connect(self, url: str, subprotocols: Sequence[str] | None = None, **options: Any) -> Any:
        url = urljoin("ws://testserver", url)
        request = self.build_request("GET", url.replace("ws", "http", 1), **options)
        return Session(self, request, list(subprotocols or ()))


class Transport(httpx.BaseTransport):  # type: ignore[misc]
    """Sends each request to the live server, whatever host it names."""

    def __init__(self, client: LiveClient) -> None:
        self._client = client
        self._real = httpx.HTTPTransport()

    def handle_request(self, request: Any) -> Any:
        url = request.url.copy_with(scheme="http", host="127.0.0.1", port=self._client.serve())
        headers = request.headers.raw
        if request.url.scheme == "https":
            headers = [*headers, (b"X-Forwarded-Proto", b"https")]
        sent = httpx.Request(
            request.method, url, headers=headers, stream=request.stream, extensions=request.extensions
        )
        try:
            answer = self._real.handle_request(sent)
        except httpx.TransportError:
            self._client.settle()
            raise
        if request.method == "HEAD" or self._client.watched.raised:
            try:
                self._client.settle()
            except BaseException:
                answer.close()
                raise
        return httpx.Response(
            answer.status_code,
            headers=answer.headers.raw,
            stream=Body(answer.stream, self._client),
            extensions=answer.extensions,
        )

    def close(self) -> None:
        self._real.close()


class Body(httpx.SyncByteStream):  # type: ignore[misc]
    """An answer's body; at its end the application is waited for."""

    def __init__(self, stream: Any, client: LiveClient) -> None:
        self._stream = stream
        self._client = client

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except httpx.TransportError:
            self._client.settle()
            raise
        self._client.settle()

    def close(self) -> None:
        self._stream.close()


class Session:
    """A WebSocket to the live server, with the methods of their WebSocketTestSession."""

    def __init__(self, client: LiveClient, request: Any, subprotocols: list[str]) -> None:
        self._client = client
        self._request = request
        self._subprotocols = subprotocols
        self._stack = contextlib.ExitStack()
        self.accepted_subprotocol: str | None = None
        self.extra_headers: list[tuple[bytes, bytes]] | None = None

    def __enter__(self) -> Self:
        made = {"host", "connection", "upgrade", "sec-websocket-key", "sec-websocket-version"}
        made |= {"content-length", "accept-encoding", "sec-websocket-protocol", "user-agent"}
        headers = [pair for pair in self._request.headers.multi_items() if pair[0].lower() not in made]
        agent = self._request.headers.get("user-agent")
        wanted = self._request.headers.get("sec-websocket-protocol")
        connection = socket.create_connection(("127.0.0.1", self._client.serve()), LIMIT_S)
        host = urlsplit(str(self._request.url)).netloc
        target = self._request.url.raw_path.decode("ascii")
        try:
            self._socket = self._stack.enter_context(
                connect(
                    f"ws://{host}{target}",
                    sock=connection,
                    additional_headers=headers,
                    user_agent_header=agent,
                    subprotocols=self._subprotocols or (wanted.split(", ") if wanted else None),
                    compression=None,
                    proxy=None,
                )
            )
        except InvalidStatus as error:
            connection.close()
            self._client.settle()
            answer = error.response
            if answer.body:
                raise theirs.WebSocketDenialResponse(
                    status_code=answer.status_code,
                    headers=[(name.encode(), value.encode()) for name, value in answer.headers.raw_items()],
                    content=bytes(answer.body),
                ) from None
            raise WebSocketDisconnect(code=1006, reason="") from None
        except (ConnectionClosed, EOFError, OSError):
            connection.close()
            self._client.settle()
            raise
        assert self._socket.response is not None
        handshake = {
            "upgrade",
            "connection",
            "sec-websocket-accept",
            "date",
            "server",
            "sec-websocket-protocol",
        }
        self.accepted_subprotocol = self._socket.subprotocol
        self.extra_headers = [
            (name.lower().encode(), value.encode("latin-1"))
            for name, value in self._socket.response.headers.raw_items()
            if name.lower() not in handshake
        ]
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()
        self._client.settle()

    def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "websocket.receive":
            self._socket.send(message["text"] if message.get("text") is not None else message["bytes"])
        else:
            self._socket.close(message.get("code", 1000), message.get("reason") or "")

    def send_text(self, data: str) -> None:
        self._socket.send(data)

    def send_bytes(self, data: bytes) -> None:
        self._socket.send(data)

    def send_json(self, data: Any, mode: str = "text") -> None:
        text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
        self._socket.send(text if mode == "text" else text.encode())

    def close(self, code: int = 1000, reason: str | None = None) -> None:
        self._socket.close(code, reason or "")

    def receive(self) -> dict[str, Any]:
        try:
            data = self._socket.recv(LIMIT_S)
        except ConnectionClosed as closed:
            self._client.settle()
            frame = closed.rcvd
            code, reason = (frame.code, frame.reason) if frame else (1006, "")
            return {"type": "websocket.close", "code": code, "reason": reason}
        return {"type": "websocket.send", ("text" if isinstance(data, str) else "bytes"): data}

    def _received(self, kind: str) -> Any:
        message = self.receive()
        if message["type"] == "websocket.close":
            raise WebSocketDisconnect(code=message["code"], reason=message["reason"])
        return message[kind]

    def receive_text(self) -> str:
        return str(self._received("text"))

    def receive_bytes(self) -> bytes:
        return bytes(self._received("bytes"))

    def receive_json(self, mode: str = "text") -> Any:
        return json.loads(self._received("text" if mode == "text" else "bytes"))


def pytest_configure() -> None:
    """Before any test imports the name."""
    theirs.TestClient = LiveClient  # type: ignore[misc]


def pytest_runtest_teardown() -> None:
    """End the servers of a test."""
    while _open:
        with contextlib.suppress(Exception):
            _open.pop().close()
