r"""The access log: one line for each finished request, written in batches.

    127.0.0.1 - - [23/Nov/2026:16:39:01 +0000] "GET /a?b=1 HTTP/1.1" 200 13                            common
    127.0.0.1 - - [23/Nov/2026:16:39:01 +0000] "GET /a?b=1 HTTP/1.1" 200 13 "-" "curl/8.5.0"           combined
    127.0.0.1 - - [23/Nov/2026:16:39:01 +0000] "GET /a?b=1 HTTP/1.1" 200 13 "-" "curl/8.5.0" 412       timed
    {"time":"2026-11-23T16:39:01+00:00","pid":4711,"client":"127.0.0.1","scheme":"http",...}           json

Rules:

* `record` formats one line and keeps it. Lines go out once a tick of the worker's clock, for which the log is a member
  with a deadline (`http.clock.Expires`), and as soon as there are `BATCH_BYTES` of them.
* Nothing here blocks or raises into serving, whatever becomes of the file: lines that cannot be written wait, up to
  `UNSENT_BYTES`; then new ones are dropped, counted, and reported when writing goes on.
* Lines of several workers never mix. A write holds whole lines; a file is appended to, and to a pipe no write is longer
  than is atomic (PIPE_BUF, pipe(7)). Only a line that is longer itself, or a disk that fills up within one, can break it.
* Whatever a client sends is printable ASCII in a line, and quotes and backslashes of its own are none: all else is \xhh.
  In JSON it is as JSON has it, and bytes that are no UTF-8 are \xhh within the string.
* `common` and `combined` are Apache's to the letter, so that every tool reads them. `timed` is `combined` with the time that
  the request took behind it, in microseconds (Apache's `%D`); `json` has it, too.

Not here: where the lines go (`access_sink`), formats of the user's own. Who wants other fields reads JSON.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from math import inf
from typing import Final, Literal, get_args

from prefork.errors import ConfigError
from prefork.http.access_sink import STANDARD_OUTPUT, Sink, end_of_piece, reason

Format = Literal["common", "combined", "timed", "json"]
Headers = Iterable[tuple[bytes, bytes]]

BATCH_BYTES: Final = 64 * 1024
"""So much does not wait for the tick: some 700 lines."""

UNSENT_BYTES: Final = 1024 * 1024
"""So much is kept for a reader that has paused, or a disk that is full: 16 times what a pipe holds."""

CLOSE_S: Final = 0.5
"""So long `close` waits for a reader that is behind."""


_MOST_KNOWN: Final = 1024
_LONGEST_KNOWN_BYTES: Final = 512
"""Bounds of the memory for texts that were escaped before."""

_PLAIN: Final = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"\\')
_SHOWN: Final = tuple(chr(byte) if byte in _PLAIN else f"\\x{byte:02x}" for byte in range(256))
"""Printable ASCII without the quote and the backslash; and how each byte is shown."""

_MONTHS: Final = ("", "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_REFERER: Final = b"referer"
_USER_AGENT: Final = b"user-agent"
_COMBINED_NAMES: Final = frozenset((_REFERER, _USER_AGENT))
_JSON_NAMES: Final = frozenset((b"host", _REFERER, _USER_AGENT))

_logger: Final = logging.getLogger("prefork.http")


class AccessLog:
    """The access log of one worker, used on its loop's thread only.

    Args:
        form: "common", "combined", "timed" or "json".
        target: a path, or "-" for standard output.
        now_s, wall_s: the clocks; what `record` gets as `started_s` is of the first.

    Raises ConfigError for another format, or a file that cannot be opened.
    """

    def __init__(
        self,
        form: str,
        target: str = STANDARD_OUTPUT,
        *,
        now_s: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self.check(form)
        self.deadline_s = inf
        """For the clock: 0 while there is something to write."""
        self.dropped = 0
        """Lines lost since the last report."""
        self._target = target
        self._now_s = now_s
        self._wall_s = wall_s
        self._is_json = form == "json"
        self._is_timed = form == "timed"
        self._lines: list[str] = []
        self._lines_bytes = 0
        self._unsent = bytearray()
        self._trouble = ""
        self._second_ends_s = -inf
        self._middle = ""
        self._clients: dict[str | None, str] = {}
        self._texts: dict[bytes | None, str] = {}
        # Chosen once: a second call for each line would cost as much as half of its work.
        forms = {
            "common": self._common,
            "combined": self._combined,
            "timed": self._combined,
            "json": self._json,
        }
        self.record = forms[form]
        """Log one finished request. Never raises, never blocks; positional arguments only:

        client: host, or None. method: one of `request.METHODS`, or "-". target: as it came. version: "1.1" or "1.0".
        status. sent_bytes: of the body. headers: of the request, names in lower case; not looked at for "common".
        scheme: "http" or "https". started_s: when its head was complete, by `time.monotonic()`.
        """
        try:
            self._sink: Sink | None = Sink(target)
        except OSError as error:
            raise ConfigError(f"access log {self._name} cannot be opened: {reason(error)}") from error

    @staticmethod
    def check(form: str) -> None:
        """Raises ConfigError unless `form` is a format."""
        if form not in get_args(Format):
            raise ConfigError(f"access log format must be one of {', '.join(get_args(Format))}, not {form!r}")

    # -- a line ------------------------------------------------------------------------------------

    def _common(  # noqa: PLR0917  (keywords would cost a tenth of the time)
        self,
        client: str | None,
        method: str,
        target: bytes,
        version: str,
        status: int,
        sent_bytes: int,
        headers: Headers,  # noqa: ARG002
        scheme: str,  # noqa: ARG002
        started_s: float,  # noqa: ARG002
        /,
    ) -> None:
        if (now_s := self._now_s()) >= self._second_ends_s:
            self._read_clock(now_s)
        host = self._clients.get(client) or self._learn_client(client)
        text = self._texts.get(target) or self._learn(target)
        line = f'{host}{self._middle}{method} {text} HTTP/{version}" {status} {sent_bytes}\n'
        self._lines.append(line)
        self.deadline_s = 0.0
        self._lines_bytes += len(line)
        if self._lines_bytes >= BATCH_BYTES:
            self.flush()

    def _combined(  # noqa: PLR0917
        self,
        client: str | None,
        method: str,
        target: bytes,
        version: str,
        status: int,
        sent_bytes: int,
        headers: Headers,
        scheme: str,  # noqa: ARG002
        started_s: float,
        /,
    ) -> None:
        if (now_s := self._now_s()) >= self._second_ends_s:
            self._read_clock(now_s)
        referer = user_agent = None
        for name, value in headers:
            if name in _COMBINED_NAMES:
                if name == _USER_AGENT:
                    user_agent = value
                else:
                    referer = value
        known = self._texts.get
        host = self._clients.get(client) or self._learn_client(client)
        took = f" {int((now_s - started_s) * 1e6)}" if self._is_timed else ""
        self._keep(
            f'{host}{self._middle}{method} {known(target) or self._learn(target)} HTTP/{version}" '
            f'{status} {sent_bytes} "{known(referer) or self._learn(referer)}" '
            f'"{known(user_agent) or self._learn(user_agent)}"{took}\n'
        )

    def _json(  # noqa: PLR0917
        self,
        client: str | None,
        method: str,
        target: bytes,
        version: str,
        status: int,
        sent_bytes: int,
        headers: Headers,
        scheme: str,
        started_s: float,
        /,
    ) -> None:
        if (now_s := self._now_s()) >= self._second_ends_s:
            self._read_clock(now_s)
        host = referer = user_agent = None
        for name, value in headers:
            if name in _JSON_NAMES:
                if name == _USER_AGENT:
                    user_agent = value
                elif name == _REFERER:
                    referer = value
                else:
                    host = value
        known = self._texts.get
        self._keep(
            f'{self._middle}{self._clients.get(client) or self._learn_client(client)},"scheme":"{scheme}",'
            f'"host":{known(host) or self._learn(host)},"method":"{method}",'
            f'"target":{known(target) or self._learn(target)},"version":"{version}","status":{status},'
            f'"bytes":{sent_bytes},"duration_us":{int((now_s - started_s) * 1e6)},'
            f'"referer":{known(referer) or self._learn(referer)},'
            f'"user_agent":{known(user_agent) or self._learn(user_agent)}}}\n'
        )

    def _keep(self, line: str) -> None:
        self._lines.append(line)
        self.deadline_s = 0.0
        self._lines_bytes += len(line)
        if self._lines_bytes >= BATCH_BYTES:
            self.flush()

    def _learn(self, text: bytes | None) -> str:
        """The text as it stands in a line; remembered, since targets and user agents come again and again."""
        escaped = _json_of(text) if self._is_json else _escaped(text)
        if text is None or len(text) <= _LONGEST_KNOWN_BYTES:
            if len(self._texts) >= _MOST_KNOWN:
                self._texts.clear()
            self._texts[text] = escaped
        return escaped

    def _learn_client(self, client: str | None) -> str:
        text = None if client is None else client.encode("utf-8", "surrogateescape")
        # A space would move the fields behind it.
        escaped = _json_of(text) if self._is_json else _escaped(text).replace(" ", r"\x20")
        if len(self._clients) >= _MOST_KNOWN:
            self._clients.clear()
        self._clients[client] = escaped
        return escaped

    def _read_clock(self, now_s: float) -> None:
        """Begin another second."""
        wall_s = self._wall_s()
        self._second_ends_s = now_s + 1 - wall_s % 1
        local = time.localtime(wall_s)
        offset = time.strftime("%z", local)
        if self._is_json:
            date = time.strftime("%Y-%m-%dT%H:%M:%S", local)
            # The pid is asked for here, and not once: the log may have been opened before a fork.
            self._middle = f'{{"time":"{date}{offset[:3]}:{offset[3:]}","pid":{os.getpid()},"client":'
        else:
            # Month names of our own: those of strftime follow the locale.
            date = time.strftime(f"%d/{_MONTHS[local.tm_mon]}/%Y:%H:%M:%S", local)
            self._middle = f' - - [{date} {offset}] "'

    # -- writing -----------------------------------------------------------------------------------

    def on_deadline(self, now_s: float) -> None:  # noqa: ARG002
        """Called by the clock."""
        self.flush()

    def flush(self) -> None:
        """Write what there is, as far as it goes without waiting. Never raises."""
        lines, self._lines = self._lines, []
        self._lines_bytes = 0
        data = "".join(lines).encode("ascii", "backslashreplace")
        self._send()
        if self._sink is None or (self._unsent and len(self._unsent) + len(data) > UNSENT_BYTES):
            self._drop(len(lines))
        else:
            self._unsent += data
            self._send()
        self.deadline_s = 0.0 if self._unsent else inf

    def reopen(self) -> None:
        """Close the file and open it again under its name (logrotate(8)); standard output stays. Never raises."""
        if self._target == STANDARD_OUTPUT or self._sink is None:
            return
        self.flush()
        try:
            sink = Sink(self._target)
        except OSError as error:
            _logger.warning("access log %s cannot be opened: %s", self._name, reason(error))
            return
        self._sink.close()
        self._sink = sink
        self.flush()

    def close(self) -> None:
        """Write what there is, waiting for half a second at most, and close. What is recorded later is lost."""
        self.flush()
        sink = self._sink
        if sink is None:
            return
        deadline_s = time.monotonic() + CLOSE_S
        while self._unsent and (left_s := deadline_s - time.monotonic()) > 0 and sink.is_ready(left_s):
            before = len(self._unsent)
            self._send()
            if len(self._unsent) == before:
                break
        self._sink = None
        self.deadline_s = inf
        sink.close()
        lost = self.dropped + self._unsent.count(b"\n")
        self._unsent.clear()
        if lost:
            _logger.warning("access log %s: %d lines were lost: %s", self._name, lost, self._trouble)

    @property
    def _name(self) -> str:
        return "on standard output" if self._target == STANDARD_OUTPUT else self._target

    def _send(self) -> None:
        """Write as much of `_unsent` as goes, in whole lines."""
        unsent, sink = self._unsent, self._sink
        if not unsent or sink is None:
            return
        try:
            while unsent:
                del unsent[: sink.write(bytes(unsent[: end_of_piece(unsent, sink.piece_bytes)]))]
        except OSError as error:
            self._trouble = reason(error)
        else:
            if self.dropped:
                _logger.warning(
                    "access log %s is written again: %d lines were dropped", self._name, self.dropped
                )
                self.dropped = 0

    def _drop(self, count: int) -> None:
        if not self.dropped and self._sink is not None:
            _logger.warning("access log %s: lines are dropped: %s", self._name, self._trouble)
        self.dropped += count


def _escaped(text: bytes | None) -> str:
    if not text:
        return "-"
    if not text.translate(None, _PLAIN):
        return text.decode("ascii")
    # Not re.sub with a function: ten times as dear, and a client may send nothing but quotes.
    return "".join(map(_SHOWN.__getitem__, text))


def _json_of(text: bytes | None) -> str:
    if text is None:
        return "null"
    if not text.translate(None, _PLAIN):
        return f'"{text.decode("ascii")}"'
    return json.dumps(text.decode("utf-8", "backslashreplace"))
