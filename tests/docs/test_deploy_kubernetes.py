"""The Kubernetes manifests are valid, and say what prefork does: ports, paths, times, names."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from prefork.observe import metrics
from prefork.observe.visitors import OPEN_PATHS
from tests.docs.deploying import DEPLOY, default_of, dockerfile, options_in_environment

kubernetes_validate = pytest.importorskip("kubernetes_validate")
yaml = pytest.importorskip("yaml")

FOLDER = DEPLOY / "kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))
VERSIONS = ("1.27", "1.31", "1.35")
ROOM_S = 5


def load(name: str) -> dict[str, Any]:
    with (FOLDER / name).open(encoding="utf-8") as file:
        return dict(yaml.safe_load(file))


@pytest.fixture
def pod() -> dict[str, Any]:
    return dict(load("deployment.yaml")["spec"]["template"]["spec"])


@pytest.fixture
def container(pod: dict[str, Any]) -> dict[str, Any]:
    return dict(pod["containers"][0])


@pytest.fixture
def environment(container: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container["env"]}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_manifest_is_what_kubernetes_takes(path: Path, version: str) -> None:
    """By the schemas of Kubernetes itself, unknown fields refused."""
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        kubernetes_validate.validate(document, version, strict=True)


def test_a_wrong_manifest_is_refused() -> None:
    """The validator is awake: a misspelt field is an error."""
    wrong = load("service.yaml")
    wrong["spec"]["port"] = wrong["spec"].pop("ports")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.31", strict=True)


def test_the_ports_are_those_that_prefork_opens(
    container: dict[str, Any], environment: dict[str, str]
) -> None:
    """What is bound, what the container names, what the service and the probes ask."""
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert environment["PREFORK_BIND"] == f":{ports['http']}"
    assert environment["PREFORK_ADMIN"] == f"0.0.0.0:{ports['admin']}"
    assert load("service.yaml")["spec"]["ports"][0]["targetPort"] in ports
    annotations = load("deployment.yaml")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(ports["admin"])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == "admin"


def test_probes_ask_what_they_mean(container: dict[str, Any]) -> None:
    """Ready is /readyz; alive is /healthz, so that a fleet whose application does not work is not restarted for it."""
    paths = {
        name: container[name]["httpGet"]["path"]
        for name in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert paths == {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
    assert set(paths.values()) <= OPEN_PATHS
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] > default_of("--boot-timeout")


def test_the_pod_has_time_to_leave(
    pod: dict[str, Any], container: dict[str, Any], environment: dict[str, str]
) -> None:
    """The pause of preStop and the grace period end before Kubernetes kills."""
    pause_s = int(container["lifecycle"]["preStop"]["exec"]["command"][-1].partition("sleep(")[2].rstrip(")"))
    grace_s = int(environment["PREFORK_GRACE_PERIOD"])
    assert grace_s == default_of("--grace-period")
    readiness = container["readinessProbe"]
    assert pause_s > readiness["periodSeconds"]
    assert pod["terminationGracePeriodSeconds"] >= pause_s + grace_s + ROOM_S


def test_every_variable_is_an_option(environment: dict[str, str]) -> None:
    """A misspelt one would be refused at the start."""
    assert {name for name in environment if name.startswith("PREFORK_")} <= options_in_environment()


def test_the_manifests_belong_together() -> None:
    """Selectors select the pods, scalers scale the deployment, and nobody else counts its replicas."""
    deployment = load("deployment.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert load("service.yaml")["spec"]["selector"] == labels
    assert load("pdb.yaml")["spec"]["selector"]["matchLabels"] == labels
    assert "replicas" not in deployment["spec"]
    for name in ("hpa.yaml", "hpa-in-flight.yaml"):
        target = load(name)["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == (deployment["kind"], deployment["metadata"]["name"])
        assert load(name)["spec"]["minReplicas"] > load("pdb.yaml")["spec"]["maxUnavailable"]


def test_the_metric_that_scales_is_one_of_ours() -> None:
    """The autoscaler asks for what /metrics says."""
    name = load("hpa-in-flight.yaml")["spec"]["metrics"][0]["pods"]["metric"]["name"]
    assert f'"{name}"' in inspect.getsource(metrics)


def test_a_container_without_a_writable_disk_has_what_prefork_writes(
    pod: dict[str, Any], container: dict[str, Any], environment: dict[str, str]
) -> None:
    """The control socket and the shared state lie in memory; the user is the image's."""
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    mounts = {one["mountPath"] for one in container["volumeMounts"]}
    assert {environment["XDG_RUNTIME_DIR"], "/dev/shm"} <= mounts  # noqa: S108  (where the state is kept)
    assert str(pod["securityContext"]["runAsUser"]) == dockerfile()["USER"][-1]
