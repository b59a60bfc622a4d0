"""Promise 1 where it is hardest: a scale-down under reuseport, while a slow worker's queue is full."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.process.harness import Fleet

SLOW = """
import select, sys
from prefork import Prefork

def serve(listener):
    while True:
        connection, _ = listener.accept()
        with connection:
            select.select([], [], [], 0.4)
            connection.sendall(b"served")

Prefork(serve_func=serve, workers=2, reuseport=True).listen_and_serve(sys.argv[1])
"""
CLIENTS = 12


def test_a_queue_that_is_served_slowly_is_served_to_its_end(
    python_script: Callable[..., Path], fleet_of_script: Callable[..., Fleet]
) -> None:
    """Twelve wait in two queues for more than the quiet time; one worker less is asked for; all are answered."""
    fleet = fleet_of_script(python_script(SLOW), "127.0.0.1:0")
    fleet.wait_for_workers(2)
    with ExitStack() as open_clients:
        clients = [
            open_clients.enter_context(socket.create_connection(("127.0.0.1", fleet.port), timeout=45))
            for _ in range(CLIENTS)
        ]
        fleet.signal(signal.SIGTTOU)
        fleet.wait_for("scale: workers wanted: 1")
        assert [client.recv(16) for client in clients] == [b"served"] * CLIENTS
    fleet.wait_for(r"worker 1 \(pid \d+, generation 1\) stopped: exit status 0")
