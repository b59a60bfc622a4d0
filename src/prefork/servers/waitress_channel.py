"""waitress's channel and task, taught two things. Imports waitress: import it in `prepare()` and later only.

* `Connection: close` while draining. A task builds the head of its answer once; there it is told to close
  when finished, exactly as waitress does for a client that asks for it.
* TLS, which waitress leaves to a proxy. The handshake happens inside the first reads, so that a slow
  client holds nobody up. waitress never reads and writes a channel at the same time (it stops reading
  while a request runs), which is what makes one `SSLSocket` safe between its loop and its threads.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

from waitress.channel import HTTPChannel
from waitress.task import ErrorTask, WSGITask

_WOULD_BLOCK = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)


def channel_class(context: ssl.SSLContext | None, is_draining: Callable[[], bool]) -> type[HTTPChannel]:
    """The channel class for one listener of one worker."""

    class DrainingTask(WSGITask):  # type: ignore[misc]
        def build_response_header(self) -> Any:
            if is_draining():
                self.set_close_on_finish()
            return super().build_response_header()

    class PlainChannel(HTTPChannel):  # type: ignore[misc]
        task_class = DrainingTask
        error_task_class = ErrorTask

    if context is None:
        return PlainChannel
    tls_context = context

    class TLSChannel(PlainChannel):
        def __init__(self, server: Any, sock: socket.socket, addr: Any, adj: Any, **options: Any) -> None:
            tls = tls_context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            super().__init__(server, tls, addr, adj, **options)

        def handle_read(self) -> None:
            # Whole records, since what TLS has decrypted already wakes no poll.
            while self.socket is not None:
                try:
                    data = self.socket.recv(self.adj.recv_bytes)
                except _WOULD_BLOCK:
                    return
                except OSError:
                    self.logger.debug("a TLS client went away", exc_info=True)
                    data = b""
                if not data:
                    self.handle_close()
                    return
                # waitress's own clock for channels, which it compares with time.time().
                self.last_activity = time.time()
                self.received(data)
                if self.socket is None or not self.socket.pending():
                    return

        def send(self, data: bytes, **options: bool) -> int:
            try:
                sent: int = super().send(data, **options)
            except _WOULD_BLOCK:
                return 0
            return sent

        def handle_close(self) -> None:
            if self.socket is not None:
                # close_notify, so that the client can tell an end from a cut; it may be gone already.
                with contextlib.suppress(OSError, ValueError):
                    self.socket.unwrap()
            super().handle_close()

    return TLSChannel
