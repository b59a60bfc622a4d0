"""Two hosts on one machine: network namespaces, HAProxy in front, Redis behind, a client apart.

    client 10.77.0.100 ──┐
                         │ bridge, in the balancer's namespace
    balancer 10.77.0.1 ──┼── host a 10.77.0.11: prefork, redis-server
     (HAProxy)           └── host b 10.77.0.12: prefork

Everything is in namespaces of its own with a name of their own: neither the machine's network nor another test is touched.
The balancer runs deploy/haproxy/haproxy.cfg as it stands.

    python -m tests.process.two_hosts          # `make two-hosts`: a rolling update of both under load; 1 if a request failed

Not here: the fleet (harness.py), the load (load.py), what is promised (test_two_hosts.py).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from signal import SIGTERM
from types import TracebackType
from typing import Self

from tests.process.apps import APPS
from tests.process.harness import WAIT_S, Fleet, wait_until
from tests.process.load import Load, Report

ROOT = Path(__file__).resolve().parents[2]
BALANCER_CONFIG = ROOT / "deploy" / "haproxy" / "haproxy.cfg"
BALANCER_ADDRESS = "10.77.0.1"
ADDRESSES = {"a": "10.77.0.11", "b": "10.77.0.12", "client": "10.77.0.100"}
HOSTS = ("a", "b")
PROGRAMS = ("ip", "haproxy", "redis-server")
SHARED = f"redis://{ADDRESSES['a']}:6379/0"
ANSWER_LIMIT_BYTES = 65_536


def reason_to_skip() -> str:
    """Why this machine cannot have two hosts; empty if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: iproute2, haproxy, redis-server)"
    name = f"prefork-try-{uuid.uuid4().hex[:8]}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"no network namespaces here: {tried.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=False)
    return ""


class TwoHosts:
    """The namespaces, the servers in them, and what an operator does with them. A context manager."""

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex[:8]
        self._stack = contextlib.ExitStack()
        self.fleets: dict[str, Fleet] = {}
        self._folder = Path()

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _begin(self) -> None:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="prefork-hosts-")))
        self._make_network()
        self._serve(["redis-server", "--bind", ADDRESSES["a"], "--protected-mode", "no", "--save", ""], "a")
        self._wait_for_port("a", 6379)
        for host in HOSTS:
            self.start(host, "first")
        self._serve(["haproxy", "-db", "-f", str(BALANCER_CONFIG)], "balancer")
        wait_until(self._socket.exists, "the balancer's control socket")
        for host in HOSTS:
            self.wait_until_up(host)

    # -------------------------------------------------------------------------------- the network

    def _name(self, place: str) -> str:
        return f"prefork-{self._mark}-{place}"

    def inside(self, place: str) -> list[str]:
        """What runs a command in a namespace: "a", "b", "client" or "balancer"."""
        return ["ip", "netns", "exec", self._name(place)]

    def _make_network(self) -> None:
        for place in ("balancer", *ADDRESSES):
            _run("ip", "netns", "add", self._name(place))
            self._stack.callback(_run, "ip", "netns", "delete", self._name(place))
            _run("ip", "-n", self._name(place), "link", "set", "lo", "up")
        middle = ["ip", "-n", self._name("balancer")]
        _run(*middle, "link", "add", "br0", "type", "bridge")
        _run(*middle, "address", "add", f"{BALANCER_ADDRESS}/24", "dev", "br0")
        _run(*middle, "link", "set", "br0", "up")
        for place, address in ADDRESSES.items():
            there = ["ip", "-n", self._name(place)]
            peer = ["peer", "name", "eth0", "netns", self._name(place)]
            _run(*middle, "link", "add", f"to-{place}", "type", "veth", *peer)
            _run(*middle, "link", "set", f"to-{place}", "master", "br0", "up")
            _run(*there, "address", "add", f"{address}/24", "dev", "eth0")
            _run(*there, "link", "set", "eth0", "up")

    def _serve(self, arguments: list[str], place: str) -> None:
        environment = {
            **os.environ,
            "HAPROXY_SOCKET": str(self._socket),
            "HAPROXY_BIND": f"{BALANCER_ADDRESS}:8000",
            "APP_A": f"{ADDRESSES['a']}:8080",
            "APP_B": f"{ADDRESSES['b']}:8080",
        }
        log = self._stack.enter_context((self._folder / f"{Path(arguments[0]).name}.log").open("wb"))
        popen = subprocess.Popen(
            [*self.inside(place), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=self._folder,
            env=environment,
        )
        self._stack.callback(_end, popen)

    def _wait_for_port(self, place: str, port: int) -> None:
        look = [*self.inside("balancer"), sys.executable, "-c", _KNOCK, ADDRESSES[place], str(port)]
        wait_until(
            lambda: subprocess.run(look, capture_output=True, check=False).returncode == 0,
            f"port {port} of {place}",
        )

    # -------------------------------------------------------------------------------- the operator's hand

    @property
    def _socket(self) -> Path:
        return self._folder / "haproxy.sock"

    def tell_balancer(self, line: str) -> str:
        """Say one line to HAProxy's runtime API: its answer."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(WAIT_S)
            client.connect(str(self._socket))
            client.sendall(line.encode() + b"\n")
            answer = bytearray()
            while data := client.recv(ANSWER_LIMIT_BYTES):
                answer += data
        return answer.decode()

    def _statistics(self, host: str) -> dict[str, str]:
        """What HAProxy tells of this host, by the names of its columns."""
        rows = self.tell_balancer("show stat").splitlines()
        names = rows[0].removeprefix("# ").split(",")
        every = (dict(zip(names, row.split(","), strict=False)) for row in rows[1:])
        return next((one for one in every if (one.get("pxname"), one.get("svname")) == ("app", host)), {})

    def is_up(self, host: str) -> bool:
        """Whether HAProxy sends requests to this host: the check has passed, and it is not draining."""
        one = self._statistics(host)
        return (one.get("status"), one.get("check_status")) == ("UP", "L7OK")

    def sent_to(self, host: str) -> int:
        """How many requests HAProxy has sent there."""
        return int(self._statistics(host)["stot"])

    def wait_until_used(self, host: str) -> None:
        """Wait until clients' requests go there: a host that is up is one of two."""
        before = self.sent_to(host)
        wait_until(lambda: self.sent_to(host) > before, f"requests to {host}")

    def wait_until_up(self, host: str) -> None:
        """Wait until HAProxy sends requests there."""
        wait_until(lambda: self.is_up(host), f"host {host} up", show=lambda: self.tell_balancer("show stat"))

    def start(self, host: str, version: str) -> Fleet:
        """Start prefork on a host, and wait until it serves with two workers."""
        arguments = ["counted:app", "--app-dir", str(APPS), "--workers", "2", "--shared", SHARED]
        arguments += ["--bind", f"{ADDRESSES[host]}:8080", "--admin", f"{ADDRESSES[host]}:9090"]
        fleet = Fleet(
            [*self.inside(host), sys.executable, "-m", "prefork", *arguments],
            env={"TEST_VERSION": version, "TEST_HOST": host},
        )
        self.fleets[host] = self._stack.enter_context(fleet)
        fleet.wait_for("ready: 2 workers")
        return fleet

    def update(self, host: str, version: str, *, is_told: bool = True) -> None:
        """Replace what a host runs: drain it, stop it, start the new version, wait until it is used again.

        is_told: whether the balancer is told before; otherwise it has to find out by itself, which is what happens where
        somebody only restarts the service.
        """
        if is_told:
            self.tell_balancer(f"set server app/{host} state drain")
        fleet = self.fleets[host]
        status = fleet.stop(SIGTERM)
        assert status == 0, fleet.output
        self.start(host, version)
        if is_told:
            self.tell_balancer(f"set server app/{host} state ready")
        self.wait_until_up(host)

    # -------------------------------------------------------------------------------- the client

    @property
    def url(self) -> str:
        """Where a client asks."""
        return f"http://{BALANCER_ADDRESS}:8000/"

    def load(self, clients: int = 16) -> Load:
        """Counted load from the client's namespace: use it in `with`."""
        return Load(self.url, clients=clients, prefix=self.inside("client"))

    def ask(self, path: str = "") -> str:
        """One answer, as the client gets it."""
        program = [*self.inside("client"), sys.executable, "-c", _ASK, self.url + path]
        return subprocess.run(program, capture_output=True, text=True, check=True, timeout=WAIT_S).stdout


_KNOCK = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)"
_ASK = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=10).read().decode(), end='')"


def _run(*arguments: str) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(arguments)}: {done.stderr.strip()}")


def _end(popen: subprocess.Popen[bytes]) -> None:
    popen.terminate()
    try:
        popen.wait(5)
    except subprocess.TimeoutExpired:
        popen.kill()
        popen.wait()


def rolling_update(hosts: TwoHosts, version: str, *, is_told: bool = True) -> Report:
    """Update both hosts, one after the other, under load: what the clients counted."""
    with hosts.load() as load:
        for host in HOSTS:
            hosts.update(host, version, is_told=is_told)
            hosts.wait_until_used(host)
        return load.finish()


def main() -> int:
    """The command: a rolling update of both, told and untold; 1 if a request failed."""
    reason = reason_to_skip()
    if reason:
        print(f"cannot be tried here: {reason}")
        return 2
    failed = 0
    with TwoHosts() as hosts:
        for version, is_told in (("second", True), ("third", False)):
            report = rolling_update(hosts, version, is_told=is_told)
            how = "drained first" if is_told else "restarted, the balancer not told"
            print(
                f"both hosts updated ({how}): {report.tried} tried, {report.answered} answered, "
                f"{report.failed_count} failed {report.failed or ''} in {report.seconds:.1f} s, "
                f"slowest {report.slowest_s * 1000:.0f} ms"
            )
            failed += report.failed_count
        print(f"counted in Redis by all workers: {hosts.ask('total')}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
