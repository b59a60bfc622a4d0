"""FastAPI, with a lifespan: a worker is ready when its start-up has run, and ends after its shutdown."""

import os
import sys
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request

from prefork import Prefork, Server


@asynccontextmanager
async def lifespan(app: FastAPI):
    yield {"greeting": f"hello from worker {os.getpid()}"}


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def hello(request: Request):
    return {"message": request.state.greeting}


if __name__ == "__main__":
    Prefork(Server(app)).listen_and_serve(sys.argv[1] if len(sys.argv) > 1 else ":8080")
