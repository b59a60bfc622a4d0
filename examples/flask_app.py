"""Flask: found to be WSGI, and served on eight threads in each worker."""

import os
import sys

from flask import Flask

from prefork import Prefork, Server

app = Flask(__name__)


@app.get("/")
def hello():
    return f"hello from worker {os.getpid()}\n"


if __name__ == "__main__":
    Prefork(Server(app, threads=8)).listen_and_serve(sys.argv[1] if len(sys.argv) > 1 else ":8080")
