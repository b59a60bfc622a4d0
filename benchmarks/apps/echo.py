"""A program that uses prefork as a library: an echo server through `serve_func`."""

from __future__ import annotations

import socket
import sys

from prefork import Prefork


def serve(listener: socket.socket) -> None:
    """One client at a time, until told to drain."""
    while True:
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data)


if __name__ == "__main__":
    Prefork(serve_func=serve, workers=int(sys.argv[2])).listen_and_serve(sys.argv[1])
