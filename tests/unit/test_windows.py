"""Windows cannot be run here; what it lacks can be taken away, and then the package must still explain itself."""

from __future__ import annotations

import subprocess
import sys

LIKE_WINDOWS = """
import os, select, signal, socket, subprocess, sys
for name in ("SIGHUP SIGQUIT SIGKILL SIGUSR1 SIGUSR2 SIGTTIN SIGTTOU SIGWINCH SIGCHLD SIGIO SIGALRM "
             "setitimer pthread_sigmask pidfd_send_signal").split():
    if hasattr(signal, name):
        delattr(signal, name)
del os.fork, socket.AF_UNIX, select.poll
sys.modules.update(fcntl=None, pwd=None, grp=None, resource=None, uvloop=None)
from prefork import OnlyReuseportOnWindowsError, ConfigError, Prefork
sys.platform = "win32"
"""


def run(code: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", LIKE_WINDOWS + code], capture_output=True, text=True, check=False, timeout=90
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_without_reuseport_windows_is_refused_with_the_seeds_error() -> None:
    """ErrOnlyReuseportOnWindows, as in the seed."""
    said = run(
        """
try:
    Prefork(serve_func=print).listen_and_serve(":0")
except OnlyReuseportOnWindowsError as error:
    print(error)
"""
    )
    assert said.startswith("windows only supports reuseport=True")


def test_with_reuseport_windows_is_refused_clearly() -> None:
    """It is not built, and says so in one line."""
    said = run(
        """
try:
    Prefork(serve_func=print, reuseport=True).listen_and_serve(":0")
except ConfigError as error:
    print(error)
"""
    )
    assert said.startswith("windows is not served yet")
