"""The command's options wherever they are given, and what is done before anything is served."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL, SIGUSR1

import pytest

import prefork
from tests.process.apps import APPS, Site, ask, serving, wait_until_ready
from tests.process.controlling import done
from tests.process.harness import Fleet, run_to_end, wait_until
from tests.process.library import make_certificate


def _is_open_to_others(path: str) -> bool:
    """Whether every folder on the way to it may be passed by anybody."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in Path(path).resolve().parents)


is_readable = _is_open_to_others(os.__file__) and _is_open_to_others(prefork.__file__)
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not is_readable,
    reason="only root can give rights up, and another user must be able to read this Python",
)
METHODS = pytest.mark.parametrize("method", ["fork", "exec"])
NOBODY = "nobody"


def _write(folder: Path, text: str, name: str = "prefork.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@METHODS
def test_a_file_says_it_all(fleet_of: Callable[..., Fleet], tmp_path: Path, method: str) -> None:
    """`prefork` alone, where there is a prefork.toml; workers that are the program again find it too."""
    _write(
        tmp_path,
        f'application = "web:app"\napp_dir = "{APPS}"\nbind = "127.0.0.1:0"\nworkers = 3\nstart-method = "{method}"\n',
    )
    fleet = fleet_of(cwd=tmp_path)
    wait_until_ready(fleet, 3)
    assert ask(fleet)
    assert fleet.stop() == 0


def test_the_command_line_before_the_environment_before_the_file(tmp_path: Path) -> None:
    """As --print-config shows it, and each value's origin."""
    _write(tmp_path, "[tool.prefork]\nworkers = 3\nbacklog = 5\nthreads = 2\n", "pyproject.toml")
    env = {"PREFORK_WORKERS": "4", "PREFORK_BACKLOG": "6"}
    status, output = run_to_end("--print-config", "--workers", "5", env=env, cwd=tmp_path)
    assert status == 0
    said = {line.split(" =")[0]: line for line in output.splitlines()}
    assert said["workers"].startswith("workers = 5 ")
    assert said["workers"].endswith("# command line")
    assert said["backlog"].startswith("backlog = 6 ")
    assert said["backlog"].endswith("# environment PREFORK_BACKLOG")
    assert said["threads"].startswith("threads = 2 ")
    assert said["threads"].endswith("# pyproject.toml [tool.prefork]")
    assert said["bind"].endswith("# default")


def test_another_file_and_none(tmp_path: Path) -> None:
    """--config names one, also in the environment; an empty name is no file."""
    _write(tmp_path, "workers = 3\n")
    other = _write(tmp_path, "workers = 4\n", "other.toml")

    def workers(*words: str, **env: str) -> str:
        _, output = run_to_end("--print-config", *words, env=env, cwd=tmp_path)
        (line,) = [line for line in output.splitlines() if "workers =" in line]
        return line.partition("#")[0].strip() if not line.startswith("#") else ""

    assert workers() == "workers = 3"
    assert workers("--config", str(other)) == "workers = 4"
    assert workers(PREFORK_CONFIG=str(other)) == "workers = 4"
    assert workers("--config", "") == ""


@pytest.mark.parametrize(
    ("words", "text", "env", "why"),
    [
        ((), "worker = 3\n", {}, "did you mean 'workers'?"),
        ((), "backlog = 0\n", {}, "backlog must be a whole number from 1"),
        ((), "= 3\n", {}, "is no TOML"),
        ((), "", {"PREFORK_BACKLOGS": "3"}, "did you mean PREFORK_BACKLOG?"),
        (("--worker", "3"), "", {}, "Did you mean '--workers'?"),
        (("--config", "no.toml"), "", {}, "no.toml cannot be read"),
        (("--chdir", "no-folder"), "", {}, "chdir 'no-folder': No such file or directory"),
        (("--umask", "7777"), "", {}, "umask must be permission bits"),
        (("--user", "no-such-user"), "", {}, "no user 'no-such-user'"),
        (("--group", "no-such-group"), "", {}, "no group 'no-such-group'"),
        (("--pidfile", "/no/such/folder/pid"), "", {}, "pidfile /no/such/folder/pid cannot be written"),
        (("--max-memory", "much"), "", {}, "'much' is no size"),
        (("--max-fleet-memory", "0%"), "", {}, "no share of memory"),
        (("--max-age", "0"), "", {}, "max_age_s must be more than 0"),
        (("--admin", "nonsense"), "", {}, "admin: "),
        (
            ("--max-requests", "5", "--server", "uvicorn"),
            "",
            {},
            "counted by prefork's own server, not by uvicorn",
        ),
        (
            ("--refuse-after-kills", "3", "--server", "uvicorn"),
            "",
            {},
            "--refuse-after-kills needs prefork's own server, which tells what it runs; uvicorn does not",
        ),
        (("--refuse-after-kills", "-1"), "", {}, "refuse_after_kills must be a whole number from 0"),
        (("--max-requests", "-1"), "", {}, "max_requests must be a whole number from 0"),
        (("--recycle-jitter", "2"), "", {}, "recycle_jitter must be a share"),
    ],
)
def test_what_cannot_be_is_refused_before_the_start(
    tmp_path: Path, words: tuple[str, ...], text: str, env: dict[str, str], why: str
) -> None:
    """Status 2, and a line that says what to do."""
    _write(tmp_path, text)
    status, output = run_to_end(*serving("web", *words), env=env, cwd=tmp_path)
    assert status == 2, output
    assert why in output, output
    assert "Traceback" not in output
    assert "serving" not in output


class TestCheck:
    def test_all_is_well(self, tmp_path: Path) -> None:
        """Status 0, one line, and nothing was opened."""
        site = Site(tmp_path)
        status, output = run_to_end(*site.serving("--check"))
        assert status == 0
        assert output == "site_app:app can be served: 2 workers, 127.0.0.1:0"

    def test_an_application_that_does_not_import(self, tmp_path: Path) -> None:
        """Status 3, and its traceback once."""
        site = Site(tmp_path)
        site.write("raise RuntimeError('broken on purpose')\n")
        status, output = run_to_end(*site.serving("--check"))
        assert status == 3
        assert (
            output.count("RuntimeError: broken on purpose") == 2
        )  # the line that says why, the traceback's last
        assert output.count("Traceback") == 1

    @pytest.mark.skipif(sys.platform != "linux", reason="start method fork is Linux's")
    @pytest.mark.parametrize(("method", "expected"), [("fork", 3), ("exec", 0)])
    def test_an_application_that_cannot_be_forked(self, tmp_path: Path, method: str, expected: int) -> None:
        """Status 3, and who it is that is in the way, as a start would end; started afresh it is none."""
        site = Site(tmp_path)
        site.write(
            "import threading\n"
            "threading.Thread(target=threading.Event().wait, name='refresher', daemon=True).start()\n"
            "async def app(scope, receive, send): ...\n"
        )
        status, output = run_to_end(*site.serving("--check", "--start-method", method))
        assert status == expected, output
        assert ("refresher" in output) == (expected == 3)

    @pytest.mark.parametrize(
        "words", [("--workers", "0"), ("--bind", "8080"), ("--certfile", "no", "--keyfile", "no")]
    )
    def test_options_that_cannot_be(self, tmp_path: Path, words: tuple[str, ...]) -> None:
        """Status 2, as a start would end."""
        status, output = run_to_end(*Site(tmp_path).serving("--check", *words))
        assert status == 2
        assert "Traceback" not in output


@METHODS
def test_another_directory(fleet_of: Callable[..., Fleet], tmp_path: Path, method: str) -> None:
    """--chdir comes before the file is looked for and the application imported, also where the program is run again."""
    folder = tmp_path / "site"
    folder.mkdir()
    Site(folder)
    _write(
        folder, 'application = "site_app:app"\nlog-file = "the.log"\nbind = "unix:the.sock"\nworkers = 1\n'
    )
    fleet = fleet_of("--chdir", "site", "--start-method", method, cwd=tmp_path)
    log = folder / "the.log"
    wait_until(
        lambda: log.exists() and "ready: 1 worker" in log.read_text(), "it serves", show=lambda: fleet.output
    )
    (worker,) = [line for line in log.read_text().splitlines() if "ready" in line and "worker 0" in line]
    fleet.kill(int(worker.partition("pid ")[2].partition(",")[0]))
    wait_until(lambda: log.read_text().count("worker 0") > 2, "it is replaced", show=log.read_text)
    wait_until(lambda: log.read_text().count(") ready") == 2, "it is ready again", show=log.read_text)
    assert stat.S_ISSOCK((folder / "the.sock").stat().st_mode)
    assert fleet.stop() == 0


def test_a_umask(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """What is created has the permissions it leaves: the log, the Unix socket."""
    words = ("--umask", "077", "--log-file", str(tmp_path / "log"))
    fleet = fleet_of(*serving("web", *words, bind=f"unix:{tmp_path / 'sock'}"))
    wait_until(lambda: (tmp_path / "sock").exists() and (tmp_path / "log").exists(), "it listens")
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600
    wait_until(
        lambda: stat.S_IMODE((tmp_path / "sock").stat().st_mode) == 0o700, "it is open to its owner only"
    )
    assert fleet.stop() == 0


def test_a_pidfile(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """There while it serves, whoever's pid stood there before; gone at the end."""
    path = _write(tmp_path, "1\n", "pid")
    fleet = fleet_of(*serving("web", "--pidfile", str(path)))
    wait_until_ready(fleet)
    assert path.read_text() == f"{fleet.pid}\n"
    fleet.kill(fleet.workers()[0])
    fleet.wait_for_workers(3)
    assert path.read_text() == f"{fleet.pid}\n"
    assert fleet.stop() == 0
    assert not path.exists()


def test_a_pidfile_that_names_another_by_now_is_left(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """A new master has taken over: it is not ours to remove."""
    path = tmp_path / "pid"
    fleet = fleet_of(*serving("web", "--pidfile", str(path)))
    wait_until_ready(fleet)
    path.write_text("1\n")
    assert fleet.stop() == 0
    assert path.read_text() == "1\n"


WHO = """
    import os
    from prefork import is_child

    at_import = os.getuid(), os.getgid(), sorted(os.getgroups())

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        body = repr((at_import, (os.getuid(), os.getgid(), sorted(os.getgroups())), is_child())).encode()
        head = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})
"""


@needs_root
@METHODS
def test_workers_as_another_user(fleet_of: Callable[..., Fleet], method: str) -> None:
    """The application is imported, and run, as that user with that user's groups; the master stays root and reaches all."""
    nobody = pwd.getpwnam(NOBODY)
    groups = sorted({nobody.pw_gid, *(g.gr_gid for g in grp.getgrall() if NOBODY in g.gr_mem)})
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder = Path(name)
        folder.chmod(0o755)
        site = Site(folder)
        site.write(WHO)
        fleet = fleet_of(*site.serving("--user", NOBODY, "--start-method", method))
        wait_until_ready(fleet)
        me = (nobody.pw_uid, nobody.pw_gid, groups)
        assert ask(fleet) == repr((me, me, True))
        old = fleet.workers()
        fleet.kill(old[0])
        fleet.wait_for_workers(3)
        assert "thread MainThread" in done(fleet, "stacks", "0")
        fleet.signal(SIGKILL)
        fleet.assert_nothing_left()


@needs_root
def test_a_key_that_only_root_may_read(fleet_of: Callable[..., Fleet]) -> None:
    """TLS with --user: the key is read before the rights are given up."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        site = Site(folder)
        cert, key, _ = make_certificate(folder)
        key.chmod(0o600)
        fleet = fleet_of(*site.serving("--user", NOBODY, "--certfile", str(cert), "--keyfile", str(key)))
        wait_until_ready(fleet)
        assert fleet.stop() == 0


@needs_root
def test_logs_are_opened_again_by_another_user(fleet_of: Callable[..., Fleet]) -> None:
    """USR1 with --user: the master's files are that user's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        site = Site(folder)
        uid = pwd.getpwnam(NOBODY).pw_uid
        os.chown(folder, uid, -1)
        access = folder / "access.log"
        fleet = fleet_of(*site.serving("--user", NOBODY, "--access-log", str(access)))
        wait_until_ready(fleet)
        assert access.stat().st_uid == uid
        access.rename(folder / "old.log")
        fleet.signal(SIGUSR1)
        wait_until(access.exists, "it is opened again", show=lambda: fleet.output)
        assert fleet.stop() == 0


@pytest.mark.skipif(
    os.geteuid() == 0 and not is_readable, reason="another user must be able to read this Python"
)
def test_workers_as_another_user_need_root(tmp_path: Path) -> None:
    """Who is not root is told so, before anything is opened."""
    prefix = ["setpriv", "--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    site = Site(tmp_path)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    with Fleet(
        [*prefix, sys.executable, "-m", "prefork", *site.serving("--user", "daemon")], cwd=Path("/")
    ) as fleet:
        assert fleet.wait() == 2
        assert "only root can run workers as another user" in fleet.output
