"""A story as a sequence: a line for each process, time downward, an arrow for each fact and each order.

Arrows with dashes are facts that reach the master; whole ones are orders of its. What it logs stands beside its line. A
worker's line is thick while it accepts connections.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from signal import Signals
from textwrap import wrap
from typing import Any

from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.commands import Nudge
from prefork.master.fleet import Phase
from tests.docs.drawing.stories import Step, Story
from tests.docs.drawing.svg import Picture

LANE, ROW, TOP, MARGIN = 114, 25, 48, 56
PAGE = 736  # what a page of the site is wide; more lanes than fit stand closer together
LINE = 76  # characters of a log line; what is longer goes on below
SIGNALS = {
    e.ReloadAsked: "HUP",
    e.UpgradeAsked: "USR2",
}
NUDGES = {
    Nudge.DRAIN: "TERM: drain",
    Nudge.QUIT: "QUIT",
    Nudge.DUMP_STACKS: "ABRT: stacks",
    Nudge.KILL: "KILL",
}
INDENT = "\N{NO-BREAK SPACE}" * 4
YOU, MASTER, SUCCESSOR = "you", "master", "new master"


@dataclass
class Row:
    """One line of the drawing: an arrow, or (`end` is None) something that the master says or does by itself."""

    start: str
    text: str
    end: str | None = None
    kind: str = ""


@dataclass
class Lane:
    """One process."""

    name: str
    under: str = ""
    begins: int = 0
    ends: int | None = None
    serves: int | None = None
    stops: int | None = None


@dataclass
class Sheet:
    """What is to be drawn, found out step by step."""

    rows: list[Row] = field(default_factory=list)
    lanes: dict[str, Lane] = field(default_factory=dict)

    def lane(self, key: str, name: str, under: str = "") -> str:
        if key not in self.lanes:
            self.lanes[key] = Lane(name, under, len(self.rows))
        return key

    def fact(self, start: str, text: str) -> None:
        """Something reaches the master."""
        self.rows.append(Row(start, text, MASTER, "told"))

    def order(self, end: str, text: str) -> None:
        """The master tells somebody something."""
        self.rows.append(Row(MASTER, text, end))

    def remark(self, text: str, kind: str = "faint") -> None:
        """The master says something, or does it by itself."""
        self.rows += [Row(MASTER, line, None, kind) for line in wrap(text, LINE, subsequent_indent=INDENT)]


def draw(story: Story) -> str:
    """The story as SVG."""
    sheet, steps = Sheet(), story.steps()
    if not isinstance(steps[0].event, (e.ChildEvent, e.Started)):
        sheet.lane(YOU, "you")
    sheet.lane(MASTER, "master")
    _those_before(sheet, steps[0])
    for step in steps:
        _fact(sheet, step)
        _who_serves(sheet, step)
        for command in step.commands:
            _order(sheet, step, command)
        _who_stops(sheet, step)
    return _picture(story, sheet)


def _those_before(sheet: Sheet, first: Step) -> None:
    for generation in first.before.zygotes:
        sheet.lane(f"zygote {generation}", "zygote", f"generation {generation}")
    for child in first.before.children.values():
        key = sheet.lane(f"worker {child.serial}", f"worker {child.slot}", f"pid {child.pid}")
        sheet.lanes[key].serves = 0


def _worker(step: Step, serial: int) -> str:
    return f"worker {serial}" if serial in {**step.before.children, **step.after.children} else MASTER


def _fact(sheet: Sheet, step: Step) -> None:
    event = step.event
    match event:
        case e.StopAsked(_, why):
            sheet.fact(YOU, why.removeprefix("SIG"))
        case e.ReloadAsked() | e.UpgradeAsked():
            sheet.fact(YOU, SIGNALS[type(event)])
        case e.UpgradeReady():
            sheet.fact(SUCCESSOR, "ready")
        case e.ZygoteReady(generation):
            sheet.fact(f"zygote {generation}", "loaded")
        case e.ZygoteFailed(generation, failure):
            sheet.fact(f"zygote {generation}", failure.summary)
        case e.ZygoteExited(generation, status):
            sheet.fact(f"zygote {generation}", _end(status))
            sheet.lanes[f"zygote {generation}"].ends = len(sheet.rows)
        case e.ChildSpawned(serial, pid):
            child = step.after.children[serial]
            sheet.fact(f"zygote {child.generation}", f"pid {pid}")
            sheet.lane(f"worker {serial}", f"worker {child.slot}", f"pid {pid}")
        case e.ChildReady(serial):
            sheet.fact(_worker(step, serial), "ready")
        case e.ChildWorn(serial, why):
            sheet.fact(_worker(step, serial), why)
        case e.ChildAwake(serial):
            sheet.fact(_worker(step, serial), "awake")
        case e.StacksSeen(_, serial, text):
            sheet.fact(_worker(step, serial), text)
        case e.ChildExited(serial, status):
            sheet.fact(_worker(step, serial), _end(status))
            sheet.lanes[f"worker {serial}"].ends = len(sheet.rows)
        case e.DeadlinePassed() if step.at_s:
            sheet.remark(f"{step.at_s:.2f} s have passed")
        case e.Started() | e.DeadlinePassed() | e.PulsesSeen():
            pass  # its orders say it
        case _:
            raise ValueError(f"say here how to draw {event}")


def _order(sheet: Sheet, step: Step, command: Any) -> None:
    match command:
        case c.StartZygote(generation):
            key = sheet.lane(f"zygote {generation}", "zygote", f"generation {generation}")
            sheet.order(key, "start, load the code")
        case c.RetireZygote(generation):
            sheet.order(f"zygote {generation}", "you may leave")
        case c.Spawn(_, slot, generation):
            sheet.order(f"zygote {generation}", f"fork worker {slot}")
        case c.NudgeChild(serial, nudge):
            sheet.order(_worker(step, serial), NUDGES[nudge])
        case c.AskStacks(_, serial):
            sheet.order(_worker(step, serial), "where do you stand?")
        case c.LookAtPulses():
            sheet.remark("looks at the scoreboard")
        case c.CallLast():
            sheet.remark("a last call: closes its sockets")
        case c.StartUpgrade():
            sheet.order(sheet.lane(SUCCESSOR, "new master"), "start, with the sockets")
        case c.CallSpawnHook(pid):
            sheet.remark(f"on_child_spawn({pid})", "code faint")
        case c.CallReadyHook(pids):
            sheet.remark(f"on_master_ready({list(pids)})", "code faint")
        case c.CallRecoverHook(old, new):
            sheet.remark(f"on_child_recover({old}, {new})", "code faint")
        case c.Log(level, text):
            sheet.remark(f"{level}: {text.splitlines()[0]}", "code bad" if level == "error" else "code")
        case c.Finish():
            sheet.remark("the end: exit status 0")
            sheet.lanes[MASTER].ends = len(sheet.rows)
        case c.Announce():
            pass  # for the service manager alone
        case _:
            raise ValueError(f"say here how to draw {command}")


def _end(status: e.ExitStatus) -> str:
    """As short as there is room for."""
    return f"exit {status.code}" if status.signal is None else f"ended by {Signals(status.signal).name[3:]}"


def _who_serves(sheet: Sheet, step: Step) -> None:
    if isinstance(step.event, e.ChildReady):
        sheet.lanes[f"worker {step.event.child}"].serves = len(sheet.rows)


def _who_stops(sheet: Sheet, step: Step) -> None:
    for serial in step.before.children:
        lane, child = sheet.lanes.get(f"worker {serial}"), step.after.children.get(serial)
        if lane is None or lane.serves is None or lane.stops is not None:
            continue
        if child is None or child.phase is not Phase.READY:
            lane.stops = len(sheet.rows) if lane.ends is None else lane.ends


def _picture(story: Story, sheet: Sheet) -> str:
    words = "; ".join(f"{row.start}{f' to {row.end}' if row.end else ''}: {row.text}" for row in sheet.rows)
    picture = Picture(story.title, words)
    lane = min(LANE, (PAGE - 2 * MARGIN) / (len(sheet.lanes) - 1))
    at = {key: MARGIN + index * lane for index, key in enumerate(sheet.lanes)}
    bottom = TOP + len(sheet.rows) * ROW + 14
    for key in sheet.lanes:
        _line_of_life(picture, at[key], sheet.lanes[key], bottom)
    width: float = max(at.values()) + MARGIN
    for index, row in enumerate(sheet.rows):
        y = TOP + index * ROW + ROW
        if row.end is None:
            picture.text(at[row.start] + 8, y + 3, row.text, row.kind)
            width = max(width, at[row.start] + 20 + 6.7 * len(row.text))
        else:
            picture.arrow(at[row.start], y, at[row.end], row.kind)
            picture.text((at[row.start] + at[row.end]) / 2, y - 4, row.text, anchor="middle")
    return picture.render(width, bottom + 8)


def _y_of(row: int) -> float:
    return TOP + row * ROW + 8


def _line_of_life(picture: Picture, x: float, lane: Lane, bottom: float) -> None:
    top = TOP - 8 if lane.begins == 0 else _y_of(lane.begins)
    end = bottom if lane.ends is None else _y_of(lane.ends) - 4
    picture.line(x, top, x, end, "life")
    if lane.serves is not None:
        stops = lane.stops if lane.stops is not None else lane.ends
        start = top if lane.serves == 0 else _y_of(lane.serves) - 8
        picture.line(x, start, x, bottom if stops is None else _y_of(stops) - 8, "serves")
    if lane.ends is not None:
        picture.cross(x, end)
    head = top - 18 if lane.under else top - 8
    picture.text(x, head, lane.name, "head", "middle")
    if lane.under:
        picture.text(x, top - 5, lane.under, "faint", "middle")
