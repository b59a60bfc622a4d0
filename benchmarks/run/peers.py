"""The environment of the Python peers, `build/peers-X.Y`: made at the first run, with the Python that runs the benchmark.

Where both sides use a library, the peers get our version of it. A peer that cannot be installed is said, and does not take the
others along.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
import subprocess
import sys
import venv
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from benchmarks.run.places import BUILD

_VERSION: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
PEERS: Final = BUILD / f"peers-{_VERSION}"
PACKAGES: Final = PEERS / "lib" / f"python{_VERSION}" / "site-packages"
REQUIREMENTS: Final = (
    "uvicorn[standard]>=0.30",
    "granian>=2",
    "hypercorn>=0.17",
    "gunicorn>=25.1",
    "gunicorn_h1c>=0.4.1",  # its C parser; its extra `fast` asks for a version that not every index has
    "fastpysgi",
    "socketify",
    "fastapi",
    "uvloop",
    "diskcache",
)
SAME_AS_OURS: Final = ("fastapi", "starlette", "pydantic", "uvloop", "httptools", "websockets")
"""What both sides run on, and would otherwise be compared through."""
INSTALL_LIMIT_S: Final = 600.0


def install_peers(say: Callable[[str], None]) -> tuple[list[str], list[str]]:
    """Make the environment unless it is as wanted: what is in it, and what is missing and why. Needs a registry once."""
    pip = [str(PEERS / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    stamp, limits = PEERS / "requirements.txt", PEERS / "constraints.txt"
    wanted = "\n".join(REQUIREMENTS) + "\n"
    constraints = "".join(_pins(SAME_AS_OURS))
    missing = PEERS / "missing.txt"
    try:
        if not stamp.exists() or stamp.read_text() != wanted or limits.read_text() != constraints:
            say(f"making {PEERS} for the peers: once, some minutes, not counted in the time left")
            venv.create(PEERS, with_pip=True, clear=True)
            limits.write_text(constraints)
            missing.write_text("\n".join(_install([*pip, "install", "--quiet", "--constraint", str(limits)])))
            stamp.write_text(wanted)
        listed = subprocess.run([*pip, "freeze"], check=True, capture_output=True, text=True, timeout=60)
        failed = [f"{line} (to try again, remove {PEERS.name})" for line in missing.read_text().splitlines()]
    except (OSError, subprocess.SubprocessError) as error:
        return [], [f"peers cannot be installed: {error}"]
    names = tuple(re.split(r"\W", requirement)[0] for requirement in REQUIREMENTS) + SAME_AS_OURS
    return [
        line.replace("==", " ") for line in listed.stdout.splitlines() if line.lower().startswith(names)
    ], failed


def _pins(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield f"{name}=={importlib.metadata.version(name)}\n"


def _install(pip_install: Sequence[str]) -> list[str]:
    """One by one, so that one peer without a build for this Python does not take the others along."""
    said = []
    for requirement in REQUIREMENTS:
        done = subprocess.run(
            [*pip_install, requirement], check=False, capture_output=True, text=True, timeout=INSTALL_LIMIT_S
        )
        if done.returncode:
            last = (done.stderr.strip() or "no word").splitlines()[-1]
            said.append(f"{requirement} cannot be installed: {last}")
    return said


@contextlib.contextmanager
def importable() -> Iterator[None]:
    """What is only a library (diskcache, the client of gunicorn's stash) can be imported here, behind all that is ours."""
    sys.path.append(str(PACKAGES))
    try:
        yield
    finally:
        sys.path.remove(str(PACKAGES))
