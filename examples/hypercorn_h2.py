"""hypercorn: HTTP/2 by prior knowledge in clear text, by ALPN over TLS. Try:

curl --http2-prior-knowledge http://127.0.0.1:8080/
"""

import sys

from asgi_hello import app

from prefork import Prefork
from prefork.servers.hypercorn import HypercornServer

server = HypercornServer(app, h2_max_concurrent_streams=50)

if __name__ == "__main__":
    Prefork(server).listen_and_serve(sys.argv[1] if len(sys.argv) > 1 else ":8080")
