"""The admin process's line to its master: asks for the status, and for nothing else.

One question at a time, whoever asks: those who come while one is under way share its answer. Nobody asks, nobody is asked:
the master of a fleet that nobody looks at sleeps.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from prefork import control

PATIENCE_S: Final = 3.0
"""A master answers within milliseconds, unless a hook of the program's keeps it."""
_ANSWER_BYTES: Final = 4 * 1024 * 1024


class SilentError(Exception):
    """The master does not answer, or is gone."""


class Line:
    """One for the process's whole life, on its loop."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._asking: asyncio.Task[control.StatusReport] | None = None

    async def report(self) -> control.StatusReport:
        """How the fleet is. Raises SilentError."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        try:
            # Shielded: the answer will come, and is nobody else's.
            return await asyncio.wait_for(asyncio.shield(self._asking), PATIENCE_S)
        except TimeoutError:
            raise SilentError(f"the master has not answered within {PATIENCE_S:g} s") from None
        except (OSError, control.ControlError) as error:
            raise SilentError(f"the master cannot be asked: {error}") from error

    def close(self) -> None:
        """Hang up. On the loop."""
        if self._streams is not None:
            self._streams[1].close()
        else:
            self._sock.close()

    async def _ask(self) -> control.StatusReport:
        if self._streams is None:
            self._streams = await asyncio.open_connection(sock=self._sock, limit=_ANSWER_BYTES)
        reader, writer = self._streams
        writer.write(control.encode(control.Status()))
        await writer.drain()
        line = await reader.readline()
        if not line:
            raise ConnectionResetError("it is gone")
        answer = control.decode_answer(line)
        if not isinstance(answer, control.StatusReport):
            raise control.ControlError(f"it said {answer}")
        return answer
