"""`Prefork`: what a program builds and calls, and the place where master and worker are put together.

    master                                   zygote                        worker
    listen_and_serve -> open -> supervise -> fork -> load -> fork twice -> Start -> serve -> Ready
                                      '----- or run the program again ---> listen_and_serve -> serve   ("exec")

`listen_and_serve` is called in every process that runs the program's code, and finds out which one it is in. In the master
it returns when the fleet has been stopped, or raises. In a child it never returns: the child leaves by
itself (`os._exit` after a fork, `SystemExit` where the program was run again).
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn

from prefork import control, system
from prefork.channel import BeAdmin, BeZygote, Channel, Start
from prefork.contracts import (
    CommandProducer,
    Logger,
    OnChildRecover,
    OnChildSpawn,
    OnMasterDeath,
    OnMasterReady,
    Reopens,
    ServeFunc,
    ServeTLSEmbedFunc,
    ServeTLSFunc,
)
from prefork.errors import ConfigError, OnlyReuseportOnWindowsError, SharedError, TLSConfigError
from prefork.identity import channel_fd, is_child
from prefork.master import events as e
from prefork.master.attendant import attend
from prefork.master.controls import Controls
from prefork.master.desk import describe_nothing
from prefork.master.fleet import Fleet, Rules
from prefork.master.gauge import Gauge
from prefork.master.lookout import Lookout, Sights
from prefork.master.loop import supervise
from prefork.master.pidfile import Pidfile
from prefork.master.scaling import Bounds
from prefork.master.shell import Hooks, Means, Shell
from prefork.master.signals import Inbox
from prefork.master.upgrade import Inheritance, inherit
from prefork.memory import memory_limit_bytes
from prefork.net.address import Address, parse_address
from prefork.net.listeners import ListenerSet, UnixOptions
from prefork.net.material import Clients, TLSBytes, TLSFiles, TLSMaterial
from prefork.net.runfolder import new_path
from prefork.net.systemd import Notifier
from prefork.observe import log
from prefork.observe.binding import admin_address
from prefork.options import FleetOptions, share_or_bytes
from prefork.scoreboard import Scoreboard
from prefork.worker.job import Job
from prefork.worker.orphans import drain_orphan
from prefork.worker.privileges import privileges
from prefork.worker.serving import Served

if TYPE_CHECKING:
    from prefork.shared.place import MasterPlace

Addresses = str | Sequence[str]

_MOST_PROCESSES = 1024
"""Workers that the scoreboard has room for, those of a reload counted twice: 1 MiB, of which only
records that were used take memory. More than that do without."""


@dataclass(kw_only=True)
class Prefork(FleetOptions):
    """A server on every core: a master that opens the sockets, and workers that it keeps alive.

    `Prefork(server).listen_and_serve(":8080")`, or without a server object `Prefork(serve_func=...)`. Every field may be
    set until one of the `listen_and_serve` methods is called (seed: the fields of `prefork.Prefork`). The options
    are those of `FleetOptions`.

    Hooks run in the process that is named with each. Those of the master run in its loop: one that blocks delays
    everything, and an exception kills all children and is raised from `listen_and_serve`.
    """

    server: Any = field(default=None, kw_only=False)
    """Serves a socket: see `contracts.Server`. Anything with `serve(listener)`."""
    serve_func: ServeFunc | None = None
    """`serve_func(listener)`, plain or `async def`: in place of a server. Worker."""
    serve_tls_func: ServeTLSFunc | None = None
    """`serve_tls_func(listener, cert_file, key_file)`. Worker."""
    serve_tls_embed_func: ServeTLSEmbedFunc | None = None
    """`serve_tls_embed_func(listener, cert_data, key_data)`. Worker."""
    on_master_death: OnMasterDeath | None = drain_orphan
    """Called in the worker, in its main thread, when the master is gone. Default: drain and exit; None: live on."""
    on_child_spawn: OnChildSpawn | None = None
    """`on_child_spawn(pid)`, master: a worker's process exists, at first, after a crash and in a reload."""
    on_master_ready: OnMasterReady | None = None
    """`on_master_ready(pids)`, master, once: all first workers have been spawned."""
    on_child_recover: OnChildRecover | None = None
    """`on_child_recover(old_pid, new_pid)`, master: a crashed worker has been replaced."""
    command_producer: CommandProducer | None = None
    """`command_producer(files)`, master: starts a worker's command with the marker set (`PREFORK_CHILD=1`) and `files`
    inherited (`pass_fds`), and returns the `subprocess.Popen`. Implies start method "exec". A command that lets go
    of the last of `files`, its channel, is taken to be ready while it runs."""
    started_in: str | None = None
    """Directory in which this program is run again (start method "exec", a reload, USR2), for a program that has changed
    its own; default: the one it is in."""
    logger: Logger | None = None
    """Default: the logger "prefork", on standard error if nobody else listens to it."""
    _inbox: Inbox | None = field(default=None, init=False, repr=False)

    def listen_and_serve(self, addr: Addresses) -> None:
        """Serve plain connections at `addr` until the fleet is stopped. Blocks. Master; children never return.

        Args:
            addr: `":8080"`, `"127.0.0.1:8080"`, `"[::1]:8080"`, `"unix:/run/app.sock"`, `"fd://3"`, or several.

        Raises:
            ConfigError: an option or address cannot work; nothing was started.
            ApplicationError: the application could not be started.
            OverRecoveryError: too many crashes within the window.
            CommandProducerError: the command producer broke its contract.
            ForkWithThreadsError: threads are alive where a fork is needed.
            Exception: whatever a hook raised.
        """
        self._run(addr, None)

    def listen_and_serve_tls(self, addr: Addresses, cert_key: str, cert_file: str) -> None:
        """As `listen_and_serve`, over TLS. The key comes before the certificate, as in the seed.

        Args:
            addr: as for `listen_and_serve`.
            cert_key: path of the private key, PEM, not encrypted.
            cert_file: path of the certificate with its chain, PEM.

        Raises:
            TLSConfigError: the files cannot be read or do not belong together; and all that `listen_and_serve` raises.
        """
        self._run(addr, TLSFiles(os.fspath(cert_file), os.fspath(cert_key), self._clients()))

    def listen_and_serve_tls_embed(self, addr: Addresses, cert_data: bytes, key_data: bytes) -> None:
        """As `listen_and_serve_tls`, with PEM in memory, certificate first (seed). It is never written to a disk.

        Args:
            addr: as for `listen_and_serve`.
            cert_data: the certificate with its chain, PEM.
            key_data: the private key, PEM, not encrypted.

        Raises:
            TLSConfigError: the data cannot be used; and all that `listen_and_serve` raises.
        """
        self._run(addr, TLSBytes(_pem(cert_data), _pem(key_data), self._clients()))

    def stop(self, *, fast: bool = False) -> None:
        """Ask for the end of the fleet, as TERM does (fast: as QUIT does). Master, any thread; does not block."""
        if self._inbox is not None:
            how = e.Stop.FAST if fast else e.Stop.GRACEFUL
            self._inbox.ask(e.StopAsked(how, "the program asked for it"))

    # -- which process is this? -------------------------------------------------------------------

    def _run(self, addr: Addresses, tls: TLSMaterial | None) -> None:
        self.check()
        served = Served(self.server, self.serve_func, self.serve_tls_func, self.serve_tls_embed_func)
        served.check(tls)
        if self.refuse_after_kills and not getattr(self.server, "can_refuse", False):
            raise ConfigError(
                "refuse_after_kills needs prefork's own server, which tells what it runs: Prefork(Server(app))"
            )
        if self.client_ca is not None and tls is None:
            raise ConfigError(
                "client_ca asks clients for certificates over TLS: give a certificate and a key, too"
            )
        logger: Logger = self.logger or log.default_logger()
        rights = privileges(self.user, self.group)
        job = Job(
            load=lambda: served.load(tls, rights.give_up if rights else None),
            on_master_death=self.on_master_death,
            reopen_logs=self._reopen_logs,
            follow_logs=lambda: log.reopen(only_moved=True),
            set_log_level=log.set_level,
            introduce=log.introduce,
            report=lambda text: logger.error("%s", text),
        )
        if is_child():
            self._be_child(job)
        if tls is not None:
            from prefork.net.tls import server_context

            server_context(tls)  # what is wrong with it is told now, in one line, not by every worker
        self._be_master(self._parse(addr), job, logger, is_tls=tls is not None)

    def _clients(self) -> Clients | None:
        if self.client_ca is None:
            return None
        return Clients(os.fspath(self.client_ca), is_required=self.client_cert == "required")

    def _reopen_logs(self) -> None:
        """Worker: the log's own file, and those of the server."""
        log.reopen()
        if isinstance(self.server, Reopens):
            self.server.reopen()

    def _parse(self, addr: Addresses) -> list[Address]:
        texts = [addr] if isinstance(addr, str) else list(addr)
        return [parse_address(text, self.network) for text in texts]

    def _be_child(self, job: Job) -> NoReturn:
        """This program was run again: as a worker, or as the zygote of a reload."""
        from prefork.shared.place import use_generation
        from prefork.worker import runtime, zygote

        fd = channel_fd(os.getpid())
        assert fd is not None
        os.set_inheritable(fd, False)
        channel = Channel(socket.socket(fileno=fd))
        messages: list[Any] = []
        while not messages and not channel.is_closed:
            messages = channel.receive()
        if not messages:
            raise SystemExit(0)  # the master was gone before we were
        message, fds = messages[0]
        assert isinstance(message, (BeZygote, Start))
        use_generation(message.generation)
        if isinstance(message, BeZygote):
            zygote.run(channel, message.generation, job, runtime.run_forked)
        runtime.run_executed(channel, job, message, fds)

    def _be_master(self, addresses: list[Address], job: Job, logger: Logger, *, is_tls: bool) -> None:
        if sys.platform == "win32":
            if not self.reuseport:
                raise OnlyReuseportOnWindowsError
            raise ConfigError(
                "windows is not served yet: run it on Linux (or macOS with start_method='exec')"
            )
        if self.refuse_after_kills > self.threshold():
            logger.warning(
                "more than %g crashes within %g s end the fleet, so %d in a row are hardly ever seen: raise the recover "
                "threshold, or lower refuse_after_kills",
                self.threshold(),
                self.recover_window_s,
                self.refuse_after_kills,
            )
        lookout = self._lookout()
        inheritance = inherit(os.environ)
        count = self.worker_count()
        with contextlib.ExitStack() as left_open:
            place = self._take_place(logger, is_upgrade=inheritance.ready_fd >= 0)
            if place is not None:
                left_open.callback(place.close)
            listeners = ListenerSet.open(
                addresses,
                reuseport=self.reuseport,
                slots=count,
                backlog=self.backlog,
                unix=UnixOptions(self.unix_mode, self.unix_user, self.unix_group),
                inherited=inheritance.listeners,
            )
            left_open.callback(listeners.close)
            for warning in listeners.warnings:
                logger.warning("%s", warning)
            places = [address.url(is_tls) for address in listeners.addresses]
            attendance = attend(
                admin_address(self.admin) if self.admin else None,
                BeAdmin(self.user, self.group, tuple(self.admin_host)),
                inheritance.admin,
            )
            if attendance is not None:
                left_open.callback(attendance.listeners.close)
            controls = self._controls(inheritance, logger)
            if controls is None and attendance is not None:
                controls = Controls("")
            if controls is not None:
                left_open.callback(controls.close)
            pidfile = None if self.pidfile is None else Pidfile(self.pidfile)
            if pidfile is not None:
                left_open.callback(pidfile.remove)
                if inheritance.ready_fd < 0:  # a successor's is written when it is ready
                    pidfile.write()
            means = self._means(job, inheritance.ready_fd, pidfile, places)
            if means.uses_zygote:
                left_open.enter_context(system.subreaper())
            self._inbox = Inbox()
            shell = Shell(
                listeners,
                self._inbox,
                notifier=Notifier(os.environ),
                logger=logger,
                hooks=Hooks(self.on_child_spawn, self.on_master_ready, self.on_child_recover),
                means=means,
                scoreboard=_scoreboard(logger, records=self.refuse_after_kills > 0),
                controls=controls,
                gauge=Gauge(system.Meter(), self.max_memory_bytes, self._fleet_bytes()),
                lookout=lookout,
                attendance=attendance,
            )
            left_open.callback(shell.close)
            name = getattr(self.server, "target", None)
            what = f"{name}: serving" if name else "serving"
            logger.info("%s %s with %d worker%s", what, ", ".join(places), count, "s" if count > 1 else "")
            if controls is not None and controls.path:
                logger.info("control socket: %s", controls.path)
            if attendance is not None:
                logger.info("admin: %s", attendance.listeners.addresses[0].url(False))
            try:
                supervise(self._fleet(count, listeners, means), shell)
            finally:
                self._inbox = None

    def _controls(self, inheritance: Inheritance, logger: Logger) -> Controls | None:
        """The control socket, if there is to be one. With an old master before us it is opened when we are ready."""
        if not self.control:
            return None
        is_late = inheritance.ready_fd >= 0
        path = self.control
        try:
            if path == "auto":
                path = (is_late and inheritance.control) or new_path(os.environ)
            controls = Controls(path)
            if not is_late:
                controls.open()
        except ConfigError as error:
            if self.control != "auto":
                raise
            logger.warning("no control socket, preforkctl cannot be answered: %s", error)
            return None
        return controls

    def _lookout(self) -> Lookout | None:
        """Who watches the code, if it is to be watched. Raises ConfigError."""
        if not self.reload:
            return None
        sights = Sights.of(self.reload_dirs, self.reload_include, self.reload_exclude)
        # Python tells two versions of a module apart by second and size only, and would run the cached one of an edit
        # that follows another at once. For forks; and for what is run again.
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        return Lookout(sights)

    def _fleet_bytes(self) -> int | None:
        """The budget of all processes together, in bytes. Raises ConfigError."""
        if self.max_fleet_memory is None:
            return None
        share, size = share_or_bytes(self.max_fleet_memory)
        if share is None:
            return size
        limit = memory_limit_bytes()
        if limit is None:
            raise ConfigError(
                f"max_fleet_memory {self.max_fleet_memory} of what? No limit is known here: give a size"
            )
        return int(limit * share)

    def _take_place(self, logger: Logger, *, is_upgrade: bool) -> MasterPlace | None:
        """Where the workers' shared state will be. That there is no such place matters only to who asked for one."""
        # Here, because it needs fcntl, and this module has to explain itself on Windows.
        from prefork.shared.place import MasterPlace

        try:
            return MasterPlace.take(self.shared, is_upgrade=is_upgrade)
        except SharedError as error:
            if self.shared is not None:
                raise
            logger.warning("workers will have no shared state (prefork.shared): %s", error)
            return None

    def _means(self, job: Job, predecessor_fd: int, pidfile: Pidfile | None, places: Sequence[str]) -> Means:
        method = self.start_method or ("fork" if sys.platform == "linux" else "exec")
        is_command = bool(getattr(self.server, "is_loaded_by_prepare", False))

        def zygote_main(channel: Channel, generation: int) -> NoReturn:
            # Loaded here, not in the master, which would carry an event loop about for nothing.
            from prefork.shared.place import use_generation
            from prefork.worker import leaving, runtime, zygote

            leaving.start_afresh()
            use_generation(generation)
            zygote.run(channel, generation, job, runtime.run_forked)

        def describe() -> control.StatusReport:
            from prefork import __version__

            return replace(
                describe_nothing(),
                pid=os.getpid(),
                version=__version__,
                name=str(getattr(self.server, "target", "")),
                addresses=tuple(places),
                log_level=log.level(),
            )

        return Means(
            zygote_main=zygote_main,
            uses_zygote=method == "fork" and self.command_producer is None,
            is_fork_fresh=lambda generation: is_command or generation == 1,
            command_producer=self.command_producer,
            reopen_logs=log.reopen,
            set_log_level=log.set_level,
            describe=describe,
            is_whole_program=is_command,
            is_watching=self._bounds() is not None or self.hang_timeout_s < math.inf,
            pidfile=pidfile,
            started_in=self.started_in,
            predecessor_fd=predecessor_fd,
        )

    def _bounds(self) -> Bounds | None:
        """How few and how many workers there may be, if the load is to say."""
        least, most = self.worker_span()
        return Bounds(least, most) if least < most else None

    def _fleet(self, count: int, listeners: ListenerSet, means: Means) -> Fleet:
        rules = Rules(
            recover_threshold=self.threshold(),
            recover_window_s=self.recover_window_s,
            recover_interval_s=self.recover_interval_s,
            grace_s=self.shutdown_grace_period_s,
            boot_timeout_s=self.boot_timeout_s,
            uses_zygote=means.uses_zygote,
            repeats_drain=means.command_producer is None,
            reuseport=self.reuseport,
            max_requests=self.max_requests,
            max_age_s=self.max_age_s,
            recycle_jitter=self.recycle_jitter,
            max_memory_bytes=self.max_memory_bytes,
            max_fleet_bytes=self._fleet_bytes(),
            watches_code=self.reload,
            has_admin=bool(self.admin),
            hang_timeout_s=self.hang_timeout_s,
            bounds=self._bounds(),
            refuse_after_kills=self.refuse_after_kills,
        )
        slots = listeners.slots_open
        return Fleet(
            rules,
            configured=count,
            wanted=count,
            steered=slots,
            slots_open=slots,
            chance=random.getrandbits(32),
        )


def _scoreboard(logger: Logger, *, records: bool) -> Scoreboard | None:
    try:
        return Scoreboard.create(_MOST_PROCESSES, records=records)
    except OSError as error:
        logger.warning("workers share connections out by chance, for want of a shared page: %s", error)
        return None


def _pem(data: object) -> bytes:
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise TLSConfigError(
        f"certificate and key must be PEM as bytes, not {type(data).__name__}: encode it, or give files"
    )
