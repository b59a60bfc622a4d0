"""The program's own functions, called in the master, in its loop: a slow one delays everything."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prefork.contracts import OnChildRecover, OnChildSpawn, OnMasterReady
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.deeds import Deeds


@dataclass(frozen=True, slots=True)
class Hooks:
    """Those that the program has given."""

    on_child_spawn: OnChildSpawn | None = None
    on_master_ready: OnMasterReady | None = None
    on_child_recover: OnChildRecover | None = None

    def deeds(self) -> Deeds:
        return {
            c.CallSpawnHook: self._spawned,
            c.CallReadyHook: self._is_ready,
            c.CallRecoverHook: self._recovered,
        }

    def _spawned(self, command: c.CallSpawnHook) -> Iterable[e.Event]:
        return _call(self.on_child_spawn, command.pid)

    def _is_ready(self, command: c.CallReadyHook) -> Iterable[e.Event]:
        return _call(self.on_master_ready, list(command.pids))

    def _recovered(self, command: c.CallRecoverHook) -> Iterable[e.Event]:
        return _call(self.on_child_recover, command.old_pid, command.new_pid)


def _call(hook: Callable[..., object] | None, *arguments: object) -> Iterable[e.Event]:
    if hook is None:
        return ()
    try:
        hook(*arguments)
    except Exception as error:  # the seed's rule: a hook's failure ends the fleet and is raised
        return (e.Broken(error),)
    return ()
