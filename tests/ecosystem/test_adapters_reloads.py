"""The promise behind each adapter's drain: clients who ask again and again never notice that workers change."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import ssl
import threading
from pathlib import Path
from typing import Self

import httpx
import pytest
import trustme

from tests.ecosystem.apps.rig import worker, worker_on

RELOADS = 4
PAUSE_S = 0.01
"""Of each client: in a tight loop they keep all CPUs busy, which the tests beside this one need, too."""

CASES = [
    ("uvicorn", "asyncio"),
    ("uvicorn", "uvloop"),
    ("uvicorn-h11", "asyncio"),
    ("hypercorn", "uvloop"),
    ("aiohttp", "uvloop"),
    ("waitress", "none"),
]


class Clients:
    """Half of them keep their connection as long as they may, half open one for each request."""

    def __init__(self, port: int, count: int, trust: ssl.SSLContext | None = None) -> None:
        self.port = port
        self.trust = trust
        self.answers = 0
        self.failures: list[BaseException] = []
        self._stop = threading.Event()
        self._counted = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, kwargs={"keeps_alive": number % 2 == 0})
            for number in range(count)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _open(self) -> http.client.HTTPConnection:
        if self.trust is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=45)
        return http.client.HTTPSConnection("localhost", self.port, timeout=45, context=self.trust)

    def _run(self, *, keeps_alive: bool) -> None:
        connection = self._open()
        try:
            while not self._stop.is_set():
                # http.client opens a new connection only after an answer that said close.
                connection.request("GET", "/", headers={} if keeps_alive else {"Connection": "close"})
                response = connection.getresponse()
                body = response.read()
                assert response.status == 200
                assert body
                with self._counted:
                    self.answers += 1
                self._stop.wait(PAUSE_S)
        except (OSError, http.client.HTTPException, AssertionError) as error:
            self.failures.append(error)
        finally:
            connection.close()


@pytest.mark.parametrize("over_tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(("case", "loop"), CASES)
def test_no_request_fails_while_workers_are_replaced(
    case: str,
    loop: str,
    over_tls: bool,  # noqa: FBT001  (pytest's parameter)
    tmp_path: Path,
) -> None:
    """A new worker is ready, the old one drains, again and again: every request is answered."""
    files, trust = certificate(tmp_path) if over_tls else ((), None)
    with contextlib.ExitStack() as fleet:
        current = fleet.enter_context(worker(case, *files, loop=loop))
        current.wait_until("ready")
        listener = current.listener
        with Clients(current.port, 16, trust) as clients:
            for _ in range(RELOADS):
                successor = fleet.enter_context(worker_on(listener, case, *files, loop=loop))
                successor.wait_until("ready")
                current.drain()
                current.wait_until("returned")
                current = successor
        assert clients.failures == []
        assert clients.answers > 100


@pytest.mark.parametrize("by_alpn", [True, False], ids=["alpn", "prior-knowledge"])
def test_http2_requests_survive_drains(tmp_path: Path, by_alpn: bool) -> None:  # noqa: FBT001
    """HTTP/2 clients are told to go elsewhere by GOAWAY, and lose no request."""
    files, trust = certificate(tmp_path) if by_alpn else ((), None)
    with contextlib.ExitStack() as fleet:
        current = fleet.enter_context(worker("hypercorn", *files, loop="uvloop"))
        current.wait_until("ready")
        listener = current.listener
        url = f"{'https' if by_alpn else 'http'}://localhost:{current.port}/"
        stop = threading.Event()
        outcome = concurrent.futures.ThreadPoolExecutor(8)
        with outcome:
            clients = [outcome.submit(ask_by_http2, url, trust, by_alpn, stop) for _ in range(8)]
            for _ in range(RELOADS):
                successor = fleet.enter_context(worker_on(listener, "hypercorn", *files, loop="uvloop"))
                successor.wait_until("ready")
                current.drain()
                current.wait_until("returned")
                current = successor
            stop.set()
        answered = [client.result() for client in clients]
        assert min(answered) > RELOADS


def ask_by_http2(url: str, trust: ssl.SSLContext | None, by_alpn: bool, stop: threading.Event) -> int:  # noqa: FBT001
    """Ask until told to stop; how often. Raises whatever goes wrong."""
    count = 0
    verify: ssl.SSLContext | bool = False if trust is None else trust
    with httpx.Client(http1=by_alpn, http2=True, verify=verify, timeout=45) as client:
        while not stop.is_set():
            response = client.get(url)
            assert (response.status_code, response.http_version) == (200, "HTTP/2")
            count += 1
            stop.wait(PAUSE_S)
    return count


def certificate(folder: Path) -> tuple[tuple[str, str], ssl.SSLContext]:
    """PEM files for localhost, and a client's context that trusts them."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    return (str(folder / "cert.pem"), str(folder / "key.pem")), trust
