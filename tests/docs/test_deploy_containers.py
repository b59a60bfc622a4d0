"""The Dockerfile and the Compose file start what they say they start. No container is run here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs.deploying import DEPLOY, ROOT, default_of, dockerfile, options_in_environment
from tests.process.harness import Fleet

yaml = pytest.importorskip("yaml")
ROOM_S = 5


def environment() -> dict[str, str]:
    """The ENV of the image."""
    return dict(pair.split("=", 1) for line in dockerfile()["ENV"] for pair in line.split())


def compose() -> dict[str, Any]:
    """The Compose file, its anchors followed."""
    with (DEPLOY / "compose" / "compose.yaml").open(encoding="utf-8") as file:
        return dict(yaml.safe_load(file))


def apps() -> list[dict[str, Any]]:
    return [dict(service) for name, service in compose()["services"].items() if name.startswith("app-")]


def test_prefork_is_process_1_and_not_root() -> None:
    """The exec form: no shell stands between Docker's TERM and the master."""
    lines = dockerfile()
    assert json.loads(lines["ENTRYPOINT"][0]) == ["prefork"]
    assert json.loads(lines["CMD"][0]) == ["asgi_hello:app"]
    assert lines["USER"] == ["10001"]
    assert lines["STOPSIGNAL"] == ["SIGTERM"]
    assert len(lines["FROM"]) == 2, "what builds does not serve"


def test_what_is_copied_is_there() -> None:
    """Every file that the image is built from, and the files that pip needs to build it."""
    copied = [word for line in dockerfile()["COPY"] if "--from" not in line for word in line.split()[:-1]]
    assert {"pyproject.toml", "README.md", "LICENSE", "src", "examples"} == set(copied)
    assert all((ROOT / name).exists() for name in copied)


def test_the_variables_are_options() -> None:
    """In the image and in the Compose file; a misspelt one would be refused at the start."""
    names = set(environment())
    for app in apps():
        names |= set(app["environment"])
    assert {name for name in names if name.startswith("PREFORK_")} <= options_in_environment()


def test_the_image_s_command_serves_and_is_healthy(tmp_path: Path) -> None:
    """The entry point with the image's own variables, ports aside; its health check says yes, and later no."""
    said = {
        name: value
        for name, value in environment().items()
        if name.startswith(("PREFORK_", "PYTHONUNBUFFERED"))
    }
    admin = said["PREFORK_ADMIN"]
    assert admin == "0.0.0.0:9090"
    said |= {"PREFORK_BIND": "127.0.0.1:0", "PREFORK_ADMIN": "127.0.0.1:0", "PREFORK_WORKERS": "1"}
    shutil.copytree(ROOT / "examples", tmp_path / "app")
    command = [sys.executable, "-m", "prefork", *json.loads(dockerfile()["CMD"][0])]
    check = json.loads(dockerfile()["HEALTHCHECK"][0].partition("CMD ")[2])
    assert ":9090/healthz" in check[-1]
    with Fleet(command, env=said, cwd=tmp_path / "app") as fleet:
        address = fleet.wait_for(r"admin.*http://(?P<at>[\d.]+:\d+)")["at"]
        fleet.wait_for("ready: 1 worker")
        ask = [sys.executable, "-c", check[-1].replace("127.0.0.1:9090", address)]
        assert subprocess.run(ask, check=False, capture_output=True, timeout=60).returncode == 0
        assert fleet.stop() == 0
        assert subprocess.run(ask, check=False, capture_output=True, timeout=60).returncode != 0


def test_two_apps_stand_behind_the_balancer() -> None:
    """Names, ports and the configuration file are those that HAProxy's configuration reads."""
    services = compose()["services"]
    balancer = services["balancer"]
    port = environment()["PREFORK_BIND"].removeprefix(":")
    for variable in ("APP_A", "APP_B"):
        host, _, given = balancer["environment"][variable].partition(":")
        assert host in services
        assert given == port
    config = balancer["volumes"][0].partition(":")[0]
    assert (DEPLOY / "compose" / config).resolve() == DEPLOY / "haproxy" / "haproxy.cfg"
    published, inside = balancer["ports"][0].split(":")
    assert (published, f":{inside}") == ("8000", balancer["environment"]["HAPROXY_BIND"])


def test_docker_waits_longer_than_prefork_does() -> None:
    """The grace period ends before Docker kills; the state is on the Valkey that is started first."""
    for app in apps():
        grace_s = int(app["environment"]["PREFORK_GRACE_PERIOD"])
        assert grace_s == default_of("--grace-period")
        assert int(app["stop_grace_period"].removesuffix("s")) >= grace_s + ROOM_S
        host = app["environment"]["PREFORK_SHARED"].removeprefix("redis://").partition(":")[0]
        assert app["depends_on"][host]["condition"] == "service_healthy"


def test_the_balancer_is_believed_and_nobody_else() -> None:
    """--trusted-proxies is the network of the Compose file, all of it and nothing more."""
    subnet = compose()["networks"]["inside"]["ipam"]["config"][0]["subnet"]
    for app in apps():
        assert app["environment"]["PREFORK_TRUSTED_PROXIES"] == subnet


def test_a_read_only_container_can_write_its_control_socket() -> None:
    """The run-time directory is in memory, and belongs to the image's user."""
    for app in apps():
        assert app["read_only"] is True
        place, _, options = app["tmpfs"][0].partition(":")
        assert place == "/run/prefork"
        assert f"uid={dockerfile()['USER'][-1]}" in options.split(",")


@pytest.mark.skipif(
    shutil.which("docker") is None or not os.path.exists("/var/run/docker.sock"),  # noqa: PTH110
    reason="Docker does not run here",
)
def test_docker_takes_the_compose_file() -> None:
    """Where there is a Docker, it is asked."""
    command = ["docker", "compose", "--file", str(DEPLOY / "compose" / "compose.yaml"), "config", "--quiet"]
    subprocess.run(command, check=True, timeout=30)
