"""The last word to a client whose request has hung its worker: 504, before the worker is killed.

Rules:

* Only the request that the loop is at gets one. The others lose their connection, as with any worker that dies, and that is
  what clients and proxies repeat by themselves (RFC 9110 §9.2.2): another worker answers. The one that hangs must not be
  repeated, or it hangs the next.
* Only where not a byte of an answer is out, and bytes can be written as they are: not over TLS, and not behind something
  that the client has not taken yet.
* Written past the loop, which does not turn. Then our side of the connection is closed: should the loop turn again before
  the worker is gone, nothing of what the application answers is sent behind it.

Runs in a signal handler, in the loop's thread; so only where the interpreter still runs handlers. A call into C that never
looks for signals is not interrupted, and its client gets nothing.

Rejected: a thread that does it, woken by the master. It would be there for every fork of the application's, for those few
calls that keep signals out and let threads in.
"""

from __future__ import annotations

import contextlib
import os
import socket
from email.utils import formatdate
from typing import Any

from prefork.http.exchange import HEAD_SENT, Exchange
from prefork.http.response import refusal


def answer_hung(exchange: Any) -> bool:
    """Answer a request that its worker is about to be killed for; whether that could be done."""
    if not isinstance(exchange, Exchange) or exchange.stage >= HEAD_SENT or exchange.is_disconnected:
        return False
    fd = exchange.connection.bare_fd(exchange)
    if fd < 0:
        return False
    date_line = b"\r\ndate: " + formatdate(usegmt=True).encode()  # the clock's is as old as the hang
    answer = refusal(504, date_line, is_bodiless=exchange.is_head_only)
    try:
        is_sent = os.write(fd, answer) == len(answer)
    except OSError:  # nobody is there any more
        return False
    # Whatever the application still does, it does for nobody. Nobody is woken: the loop is not ours in here.
    exchange.is_disconnected = True
    exchange.is_ordinary = False
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as ours:
        ours.shutdown(socket.SHUT_WR)
    return is_sent
