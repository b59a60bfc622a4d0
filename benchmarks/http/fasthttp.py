"""The seed's own server, Go's fasthttp under its own prefork, built from Debian's package."""

from __future__ import annotations

import os
import subprocess
from typing import Final

from benchmarks.run.places import BUILD, ROOT
from benchmarks.run.tools import GO_PATH

GO_PROGRAM: Final = BUILD / "fasthttp-serve"
GO_SOURCE: Final = ROOT / "benchmarks" / "go" / "main.go"
BUILD_LIMIT_S: Final = 600.0


class NotBuiltError(Exception):
    """There is no such program, and the message says why."""


def build_go() -> str:
    """Build the Go program unless it is newer than its source: its version. Raises NotBuiltError."""
    try:
        if not GO_PROGRAM.exists() or GO_PROGRAM.stat().st_mtime < GO_SOURCE.stat().st_mtime:
            GO_PROGRAM.parent.mkdir(parents=True, exist_ok=True)
            environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GO_PATH), "GOFLAGS": ""}
            subprocess.run(
                ["go", "build", "-o", str(GO_PROGRAM), str(GO_SOURCE)],  # noqa: S607  (found on the PATH)
                check=True,
                capture_output=True,
                text=True,
                env=environment,
                timeout=BUILD_LIMIT_S,
            )
        version = subprocess.run(
            ["go", "version", str(GO_PROGRAM)],  # noqa: S607
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    except OSError as error:
        raise NotBuiltError(f"Go cannot be run: {error}") from error
    except subprocess.CalledProcessError as error:
        raise NotBuiltError(f"fasthttp cannot be built: {str(error.stderr).strip()}") from error
    except subprocess.TimeoutExpired as error:
        raise NotBuiltError(f"fasthttp cannot be built: not within {BUILD_LIMIT_S:g} s") from error
    return f"fasthttp of {GO_PATH} built by {version.rpartition(' ')[2].strip()}"
