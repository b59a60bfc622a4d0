"""The example of the README of Go's fasthttp/prefork, in Python.

server := &fasthttp.Server{ ... }
preforkServer := prefork.New(server)
if err := preforkServer.ListenAndServe(":8080"); err != nil { panic(err) }
"""

import sys

from asgi_hello import app

from prefork import Prefork, Server

server = Server(app)

# Wraps the server with prefork
prefork_server = Prefork(server)

if __name__ == "__main__":
    prefork_server.listen_and_serve(sys.argv[1] if len(sys.argv) > 1 else ":8080")
