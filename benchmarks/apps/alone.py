"""Our server alone, without a master: `alone.py ADDRESS ATTR`, for an application of serving.py."""

from __future__ import annotations

import sys

import serving

from prefork import Server

if __name__ == "__main__":
    Server(getattr(serving, sys.argv[2])).listen_and_serve(sys.argv[1])
