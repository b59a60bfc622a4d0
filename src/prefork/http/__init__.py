"""The HTTP/1.1 server for ASGI 3, in plain Python on uvloop and httptools. What it is made of: see `http.server`."""
