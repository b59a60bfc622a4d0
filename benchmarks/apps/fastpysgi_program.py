"""fastpysgi with several workers, which its command does not offer.

fastpysgi_program.py ATTR PORT WORKERS [CERT_FILE KEY_FILE]
"""

from __future__ import annotations

import sys

import fastpysgi  # type: ignore[import-not-found]  # lives in the peers' environment only
import serving

if __name__ == "__main__":
    if len(sys.argv) > 4:
        fastpysgi.server.tls_list = [(sys.argv[4], sys.argv[5], None)]
    application = getattr(serving, sys.argv[1])
    fastpysgi.run(application, "127.0.0.1", int(sys.argv[2]), loglevel=3, workers=int(sys.argv[3]))
