"""The standard library's socketserver: a thread for each connection. Try it with `nc 127.0.0.1 8080`."""

import socketserver
import sys

from prefork import Prefork
from prefork.servers.socketserver import SocketServerServer


class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


if __name__ == "__main__":
    Prefork(SocketServerServer(Echo)).listen_and_serve(sys.argv[1] if len(sys.argv) > 1 else ":8080")
