"""Strangers' suites against our HTTP server: `python -m strangers`, or `make strangers`.

Peers ship collections of raw requests with what should become of them, and whole suites that talk to a server over
sockets. Nothing of theirs lies here: their packages are fetched at run time, by name, version and hash (`sources`), and
unpacked under build/strangers.

* A collection is read without running any of its code (`gunicorn_requests`, `http_parser_c`, `lighttpd_c`, `httparse_rs`),
  which gives cases (`case`); each is told to a live server (`live`) four ways: ASGI and WSGI, whole and byte by byte.
* A suite is run by its own runner in an environment of its own, with our server put in place of theirs (`suites`,
  `stand_ins`).

Where we differ, and mean to, is written down case by case with its reason (`known`). A difference that is not written
down fails, and so does one that is written down and is none.
"""
