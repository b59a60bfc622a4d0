"""No HTTP, no server object: a function that serves a socket. Try it with `nc 127.0.0.1 8080`."""

import sys

from prefork import Prefork


def echo(listener):
    while True:  # TERM ends accept() between two connections
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)


if __name__ == "__main__":
    Prefork(serve_func=echo).listen_and_serve(sys.argv[1] if len(sys.argv) > 1 else ":8080")
