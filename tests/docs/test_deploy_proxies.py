"""HAProxy and nginx take their configuration, and its figures are those of prefork's options."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.docs.deploying import DEPLOY, ROOT, default_of, dockerfile
from tests.process.harness import Fleet, wait_until

HAPROXY = DEPLOY / "haproxy" / "haproxy.cfg"
NGINX = DEPLOY / "nginx" / "nginx.conf"
UNITS = {"": 0.001, "ms": 0.001, "s": 1, "m": 60, "h": 3600}
SIZES = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SOCKET = "/run/prefork/http.sock"


def haproxy_time_s(name: str) -> float:
    """A time of HAProxy's file, in seconds."""
    found = re.search(
        rf"\b{name} (\d+)(ms|s|m|h)?\b", HAPROXY.read_text(encoding="utf-8").replace("#", "\n#")
    )
    assert found, name
    return int(found[1]) * UNITS[found[2] or ""]


def nginx_says(name: str) -> str:
    """A directive of nginx's file."""
    found = re.search(rf"^\s*{name} (.+?);", NGINX.read_text(encoding="utf-8"), re.MULTILINE)
    assert found, name
    return found[1]


def nginx_time_s(name: str) -> float:
    return float(nginx_says(name).removesuffix("s"))


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")
def test_haproxy_takes_its_configuration(tmp_path: Path) -> None:
    """`haproxy -c` says yes, and no to the same with one word misspelt."""
    subprocess.run(["haproxy", "-c", "-f", str(HAPROXY)], check=True, capture_output=True, timeout=60)
    wrong = tmp_path / "wrong.cfg"
    wrong.write_text(HAPROXY.read_text(encoding="utf-8").replace("option redispatch", "option redispach"))
    refused = subprocess.run(
        ["haproxy", "-c", "-f", str(wrong)], check=False, capture_output=True, timeout=60
    )
    assert refused.returncode != 0


def test_haproxy_agrees_with_prefork() -> None:
    """Who sends requests is who closes; no limit of the one undercuts the other's."""
    text = HAPROXY.read_text(encoding="utf-8")
    # A purge takes half of the idle connections each time: what is never used is gone after a few of them.
    assert haproxy_time_s(" pool-purge-delay") * 10 < default_of("--keep-alive")
    assert haproxy_time_s("timeout http-request") == default_of("--head-timeout")
    assert haproxy_time_s("timeout tunnel") > 2 * default_of("--ping-interval")
    assert haproxy_time_s("timeout server") > default_of("--body-timeout")
    admin = environment_of_image("PREFORK_ADMIN").rpartition(":")[2]
    assert f"check port {admin} " in text
    assert "uri /readyz" in text
    assert {"APP_A", "APP_B", "HAPROXY_BIND", "HAPROXY_SOCKET"} == set(re.findall(r'"\$\{(\w+)-', text))


def ask(path: str) -> bytes:
    """One answer, whole, over a Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(45)
        client.connect(path)
        client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        received = bytearray()
        while data := client.recv(65536):
            received += data
    return bytes(received)


def is_answering(path: str) -> bool:
    try:
        ask(path)
    except OSError:
        return False
    return True


def environment_of_image(name: str) -> str:
    pairs = dict(pair.split("=", 1) for line in dockerfile()["ENV"] for pair in line.split())
    return pairs[name]


def test_nginx_agrees_with_prefork() -> None:
    """The same limits on both sides, and idle connections that nginx closes first."""
    assert nginx_time_s("keepalive_timeout") < default_of("--keep-alive")
    assert nginx_time_s("client_header_timeout") == default_of("--head-timeout")
    assert nginx_time_s("client_body_timeout") == default_of("--body-timeout")
    assert nginx_time_s("send_timeout") == default_of("--send-timeout")
    assert nginx_time_s("proxy_read_timeout") > 2 * default_of("--ping-interval")
    size = nginx_says("client_max_body_size")
    assert int(size[:-1]) * SIZES[size[-1]] == default_of("--body-bytes")
    count, each = nginx_says("large_client_header_buffers").split()
    assert int(each[:-1]) * SIZES[each[-1]] == default_of("--target-bytes")
    assert int(count) * int(each[:-1]) * SIZES[each[-1]] == default_of("--head-bytes")
    assert f"server unix:{_SOCKET} " in NGINX.read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_takes_its_configuration_and_serves_with_it(tmp_path: Path) -> None:
    """`nginx -t` says yes; through it a client gets prefork's answer over the Unix socket."""
    subprocess.run(
        ["nginx", "-t", "-p", str(tmp_path), "-c", str(NGINX)], check=True, capture_output=True, timeout=60
    )
    tmp_path.chmod(0o755)
    inner, outer = f"/tmp/prefork-{os.getpid()}-in.sock", f"/tmp/prefork-{os.getpid()}-out.sock"  # noqa: S108
    config = tmp_path / "nginx.conf"
    text = NGINX.read_text(encoding="utf-8").replace(_SOCKET, inner)
    config.write_text(text.replace("listen 8000;", f"listen unix:{outer};"), encoding="utf-8")
    arguments = ["asgi_hello:app", "--app-dir", str(ROOT / "examples"), "--bind", f"unix:{inner}"]
    arguments += ["--unix-mode", "666", "--workers", "1"]
    with Fleet.command(*arguments) as fleet:
        fleet.wait_for("ready: 1 worker")
        nginx = subprocess.Popen(
            ["nginx", "-p", str(tmp_path), "-c", str(config), "-g", "daemon off;"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until(lambda: is_answering(outer), "nginx")
            assert b"hello from worker" in ask(outer)
        finally:
            nginx.terminate()
            nginx.wait(45)
            Path(outer).unlink(missing_ok=True)
        assert fleet.stop() == 0
