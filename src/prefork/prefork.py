"""`Prefork`: what a program builds and calls; it finds out which process it is called in.

    master                                   zygote                        worker
    listen_and_serve -> open -> supervise -> fork -> load -> fork twice -> Start -> serve -> Ready
                                      '----- or run the program again ---> listen_and_serve -> serve   ("exec")

`listen_and_serve` is called in every process that runs the program's code. In the master (`composition`) it returns when the fleet has been stopped, or raises. In a child it never returns: the child leaves by
itself (`os._exit` after a fork, `SystemExit` where the program was run again).
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from prefork.channel import BeZygote, Channel, Start
from prefork.composition import Program, be_master
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
from prefork.errors import ConfigError, OnlyReuseportOnWindowsError, TLSConfigError
from prefork.identity import channel_fd, is_child
from prefork.master import events as e
from prefork.master.hooks import Hooks
from prefork.master.signals import Inbox
from prefork.net.address import Address, parse_address
from prefork.net.material import Clients, TLSBytes, TLSFiles, TLSMaterial
from prefork.observe import log
from prefork.options import FleetOptions
from prefork.worker.job import Job
from prefork.worker.orphans import drain_orphan
from prefork.worker.privileges import privileges
from prefork.worker.serving import Served

Addresses = str | Sequence[str]


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
        from prefork import __version__  # known by the time that anything is called

        program = Program(
            job,
            logger,
            Hooks(self.on_child_spawn, self.on_master_ready, self.on_child_recover),
            command_producer=self.command_producer,
            started_in=self.started_in,
            version=__version__,
            target=str(getattr(self.server, "target", "")),
            is_command=bool(getattr(self.server, "is_loaded_by_prepare", False)),
        )
        be_master(self, program, addresses, is_tls=is_tls, hearing=self._hearing)

    @contextlib.contextmanager
    def _hearing(self) -> Iterator[Inbox]:
        """What the master is asked by signals, and by `stop`."""
        inbox = self._inbox = Inbox()
        try:
            yield inbox
        finally:
            self._inbox = None
            inbox.close()


def _pem(data: object) -> bytes:
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise TLSConfigError(
        f"certificate and key must be PEM as bytes, not {type(data).__name__}: encode it, or give files"
    )
