"""The certificate is replaced while it is used."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections import Counter
from pathlib import Path
from signal import SIGHUP

from benchmarks.chaos.fault import Fault, LeftOutError
from benchmarks.chaos.stage import Stage
from tests.process.harness import WAIT_S, wait_until

CLIENTS = 4
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class TLSClients:
    """Threads that ask over TLS, each request on a connection of its own, until they are told to stop."""

    def __init__(self, port: int, authority: Path) -> None:
        self._port = port
        self._context = ssl.create_default_context(cafile=str(authority))
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(CLIENTS)]
        self.tried = self.answered = 0
        self.failed = Counter[str]()
        self.slowest_s = 0.0
        self.last_certificate = ""
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Let each end its request."""
        self._stop.set()
        for thread in self._threads:
            thread.join(WAIT_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            begun_s = time.monotonic()
            failure = ""
            certificate = ""
            try:
                certificate = self._ask()
            except (OSError, ValueError) as error:
                failure = f"TLS: {type(error).__name__}: {error}"
            with self._lock:
                self.tried += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - begun_s)
                if failure:
                    self.failed[failure] += 1
                else:
                    self.answered += 1
                    self.last_certificate = certificate

    def _ask(self) -> str:
        """One request: the certificate that was shown. OSError, ValueError where there is no answer."""
        raw = socket.create_connection(("127.0.0.1", self._port), WAIT_S)
        with raw, self._context.wrap_socket(raw, server_hostname="localhost") as client:
            certificate = client.getpeercert(binary_form=True) or b""
            client.sendall(REQUEST)
            received = b""
            while data := client.recv(4096):
                received += data
        if not received.startswith(b"HTTP/1.1 200") or b"pid" not in received:
            raise ValueError(f"not an answer: {received[:40]!r}")
        return certificate.hex()


def swap(stage: Stage) -> None:
    """One certificate after the other, then one that is none."""
    try:
        import trustme  # noqa: PLC0415  (of the tests' own group)
    except ImportError as error:
        raise LeftOutError("trustme, which makes certificates, is not installed") from error
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(stage.folder / "authority.pem"))
    cert, key = stage.folder / "cert.pem", stage.folder / "key.pem"

    def issue() -> str:
        issued = authority.issue_cert("localhost")
        cert.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode()).hex()

    issue()
    fleet = stage.fleet("--certfile", str(cert), "--keyfile", str(key))
    clients = TLSClients(fleet.port, stage.folder / "authority.pem")
    shown = ""
    try:
        for _ in stage.rounds(3, 20):
            shown = issue()
            fleet.signal(SIGHUP)
            fleet.wait_for("reload done")
            wait_until(lambda shown=shown: clients.last_certificate == shown, "the new one is shown")  # type: ignore[misc]
        cert.write_text("-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n", encoding="ascii")
        fleet.signal(SIGHUP)
        fleet.wait_for("reload failed: .*serves on")
        answered = clients.answered
        wait_until(lambda: clients.answered > answered + CLIENTS, "clients are served on")
    finally:
        clients.finish()
    stage.count(clients.tried, clients.answered, clients.failed, clients.slowest_s)
    stage.hold(
        not clients.failed, f"{clients.failed.total()} of {clients.tried} failed: {dict(clients.failed)}"
    )
    stage.hold(clients.last_certificate == shown, "after a broken certificate the last good one is not shown")
    stage.ends(fleet, may_trace=True)


FAULTS = (
    Fault(
        "certificate",
        "2, 3",
        "certificate and key replaced, HUP, again and again, under clients that check them; then a broken one",
        "0 fail; each new one is shown; the broken one changes nothing",
        swap,
    ),
)
