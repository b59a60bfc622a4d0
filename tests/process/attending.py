"""The test's side of an admin process: ask a fleet's, as browsers and scrapers do."""

from __future__ import annotations

import http.client
import json
from typing import Any

from tests.process.harness import WAIT_S, Fleet, wait_until

ADMIN = r"admin: http://127\.0\.0\.1:(?P<port>\d+)"


def admin_port(fleet: Fleet) -> int:
    """Where it says that it listens."""
    return int(fleet.wait_for(ADMIN, since=0)["port"])


def look(fleet: Fleet, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    """Ask for `path` on a connection of its own: status and body. Raises OSError while nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", admin_port(fleet), timeout=WAIT_S)
    try:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=given)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def status(fleet: Fleet) -> dict[str, Any]:
    """What status.json says."""
    code, body = look(fleet, "/status.json")
    assert code == 200, body
    found: dict[str, Any] = json.loads(body)
    return found


def metric(fleet: Fleet, line: str) -> float:
    """The value of one line of the metrics: `metric(fleet, 'prefork_requests_total{status="2xx"}')`."""
    _, body = look(fleet, "/metrics")
    (found,) = (each for each in body.splitlines() if each.startswith(line + " "))
    return float(found.rpartition(" ")[2])


def admin_pids(fleet: Fleet) -> list[int]:
    """The admin processes of this fleet."""
    return [
        process.pid for process in fleet.members() if "prefork.observe.admin" in _command_line(process.pid)
    ]


def admin_pid(fleet: Fleet) -> int:
    """The one there is; waits for it to be past the program that starts it."""
    wait_until(lambda: len(admin_pids(fleet)) == 1, "there is an admin process", show=lambda: fleet.output)
    return admin_pids(fleet)[0]


def _command_line(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123  (procfs)
            return file.read().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # gone
        return ""
