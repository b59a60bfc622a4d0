"""Flask with what applications use of it; what happens after an answer is told by a file that a request names."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flask import Flask, Response, g, jsonify, request, send_file, session, stream_with_context

app = Flask(__name__)
app.secret_key = "not secret"
together = threading.Barrier(8)


def leave(word: str) -> None:
    """A word for the test, which looks into the file."""
    if "note" in request.args:
        with Path(request.args["note"]).open("a", encoding="utf-8") as file:
            file.write(word)


@app.before_request
def begin() -> None:
    g.began = True


@app.teardown_request
def torn_down(error: BaseException | None) -> None:
    leave(f"teardown {type(error).__name__} ")


@app.get("/json")
def json() -> Response:
    return jsonify(
        {
            "url": request.full_path,
            "root": request.script_root,
            "scheme": request.scheme,
            "began": g.began,
            "is_over": request.input_stream.read() == b"",
        }
    )


@app.post("/upload")
def upload() -> dict[str, Any]:
    files = {name: (file.filename, len(file.read())) for name, file in request.files.items()}
    return {"files": files, "fields": request.form.to_dict()}


@app.post("/raw")
def raw() -> str:
    return f"{len(request.get_data())} {request.content_length}"


@app.post("/piecewise")
def piecewise() -> Response:
    """Read a piece, send a piece."""

    @stream_with_context
    def pieces() -> Iterator[bytes]:
        while piece := request.stream.read(10_000):
            yield piece.upper()

    return Response(pieces(), mimetype="text/plain")


@app.get("/stream")
def stream() -> Response:
    @stream_with_context
    def pieces() -> Iterator[str]:
        try:
            for number in range(int(request.args.get("count", 20))):
                yield f"{number},"
        finally:
            leave("closed ")

    return Response(pieces(), mimetype="text/plain")


@app.get("/breaks")
def breaks() -> Response:
    def pieces() -> Iterator[str]:
        yield "begun"
        raise RuntimeError("in the midst of a stream")

    return Response(pieces())


@app.get("/file")
def file() -> Response:
    return send_file(request.args["path"], as_attachment=True, download_name="ü.bin", conditional=True)


@app.get("/session")
def visits() -> str:
    session["visits"] = session.get("visits", 0) + 1
    return str(session["visits"])


@app.get("/raises")
def raises() -> str:
    raise RuntimeError("of the view")


@app.get("/empty")
def empty() -> tuple[str, int]:
    return "", 204


@app.get("/slow")
def slow() -> dict[str, int]:
    """Which thread of which worker; answered when eight ask at once."""
    together.wait(45)
    return {"pid": os.getpid(), "thread": threading.get_ident()}
