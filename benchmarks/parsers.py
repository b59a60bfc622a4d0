"""Which parser: httptools (llhttp) and zttp, from the bytes of a request to method, target and headers.

    python -m benchmarks.parsers

The same work for both: lower-case names, what the server asks of framing and keep-alive, ready for the next request. CPU
time of this thread, the least of several rounds in turns. zttp is measured where it is installed (pip install zttp).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any, Final

import httptools

_SHORT: Final = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n"
_LONG: Final = (
    b"GET /shop/items?page=3&sort=price HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"
    b"Accept: text/html,application/xhtml+xml\r\nAccept-Language: en,de;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n"
    b"Referer: https://shop.example/\r\nCookie: session=0123456789abcdef; theme=dark\r\nSec-Fetch-Dest: document\r\n"
    b"Sec-Fetch-Mode: navigate\r\nCache-Control: max-age=0\r\n\r\n"
)
_ROUNDS: Final = 9
_REQUESTS: Final = 20_000


class _Gathering:
    """What httptools calls: as little as a server can do with what it is told."""

    def __init__(self) -> None:
        self.names: dict[bytes, bytes] = {}
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.parser: Any = httptools.HttpRequestParser(self)
        self.request: Any = None

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        lowered = self.names.get(name)
        if lowered is None:
            lowered = self.names[name] = name.lower()
        self.headers.append((lowered, value))

    def on_headers_complete(self) -> None:
        self.request = (self.parser.get_method(), self.url, self.headers, self.parser.should_keep_alive())
        self.url = b""
        self.headers = []

    def on_message_complete(self) -> None:
        pass


def _with_httptools() -> Callable[[bytes], Any]:
    gathering = _Gathering()

    def parse(data: bytes) -> Any:
        gathering.parser.feed_data(data)
        return gathering.request

    return parse


def _with_zttp() -> Callable[[bytes], Any]:
    import zttp  # type: ignore[import-not-found]  # noqa: PLC0415  (not everywhere)

    connection = zttp.Connection(zttp.SERVER)
    names: dict[bytes, bytes] = {}

    def lower(name: bytes) -> bytes:
        return names.get(name) or names.setdefault(name, name.lower())

    def parse(data: bytes) -> Any:
        request = connection.receive_event(data)
        if not request.end_stream:
            connection.next_event()
        # Its block of headers is lazy, and its names are as they came.
        headers = [(lower(name), value) for name, value in request.headers]
        result = (request.method, request.target, headers, not connection.should_close())
        # Its state machine wants an answer before the next request.
        connection.send_response(204)
        connection.end_message()
        connection.data_to_send()
        connection.start_next_cycle()
        return result

    return parse


def _cost_us(parse: Callable[[bytes], Any], data: bytes) -> float:
    begun_ns = time.thread_time_ns()
    for _ in range(_REQUESTS):
        parse(data)
    return (time.thread_time_ns() - begun_ns) / _REQUESTS / 1000


def main() -> None:
    """The command."""
    parsers = {"httptools": _with_httptools()}
    try:
        parsers["zttp"] = _with_zttp()
    except ImportError as error:
        print(f"zttp was not measured: {error}")
    for title, data in (("1 header", _SHORT), ("10 headers", _LONG)):
        costs: dict[str, list[float]] = {name: [] for name in parsers}
        for _ in range(_ROUNDS):
            for name, parse in parsers.items():
                costs[name].append(_cost_us(parse, data))
        for name, found in costs.items():
            print(f"{title:<11} {name:<10} {median(found):5.2f} µs  ({min(found):.2f} to {max(found):.2f})")


if __name__ == "__main__":
    main()
