"""The phases of a worker, and what leads from one to another: as far as the stories go, which is all that is known.

The boxes are `Phase`, in its own order, which is that of a whole life. The arrows are what was seen while the stories were
told. An arrow that nobody has a word for is an error, so a new way cannot be forgotten here.
"""

from __future__ import annotations

from prefork.master.fleet import Phase
from tests.docs.drawing.stories import WALKED
from tests.docs.drawing.svg import Picture

GONE = "gone"
Way = tuple[str, str]
WORDS: dict[Way, str] = {
    ("spawning", "booting"): "the zygote has forked it (or the program runs again)",
    ("spawning", GONE): "the fork failed: tried again, never counted",
    ("booting", "ready"): "its server reaches for the listening socket",
    ("spawning", "draining"): "not wanted any more when it is there",
    ("spawning", "killed"): "the same, after a hook has raised",
    ("booting", "steered"): "ready, to empty the queue of a slot that is to be closed",
    ("booting", "draining"): "not wanted any more",
    ("booting", "aborted"): "not ready within the boot time-out",
    ("booting", "killed"): "a fast stop; or it says that it cannot start, and stays",
    ("booting", GONE): "its start failed, or it crashed",
    ("ready", "steered"): "scaled down with `reuseport`: new connections go elsewhere",
    ("ready", "draining"): "a stop; scaled down; its successor is ready (reload, recycling)",
    ("ready", "aborted"): "its event loop is blocked: its stacks are asked for",
    ("ready", "killed"): "a hook has raised",
    ("ready", GONE): "it crashed, or left by itself",
    ("steered", "draining"): "nobody waits in its queue any more, or the time for that is over",
    ("steered", "aborted"): "its event loop is blocked",
    ("steered", "killed"): "a hook has raised",
    ("steered", GONE): "it crashed: another one takes its queue over",
    ("draining", "aborted"): "its event loop is blocked",
    ("draining", "killed"): "the grace period is over",
    ("draining", GONE): "it has finished",
    ("aborted", "killed"): "it has told its stacks, or its time for that is over",
    ("aborted", GONE): "it ended by itself",
    ("killed", GONE): "the kernel is done with it",
}
WIDTH, HEIGHT, GAP, MARGIN = 82, 28, 16, 12


def ways() -> list[Way]:
    """From which phase to which one leads, as it was seen; in the order of a life."""
    order = [*(phase.value for phase in Phase), GONE]
    seen = set()
    for story in WALKED:
        for step in story.steps():
            for serial, child in step.before.children.items():
                after = step.after.children.get(serial)
                seen.add((child.phase.value, GONE if after is None else after.phase.value))
    return sorted(
        (way for way in seen if way[0] != way[1]), key=lambda way: (order.index(way[0]), order.index(way[1]))
    )


def draw() -> str:
    """The picture: those that come next to each other in a whole life above, short cuts to the end below."""
    order = [*(phase.value for phase in Phase), GONE]
    words = "; ".join(f"{start} to {end}: {WORDS[start, end]}" for start, end in ways())
    picture = Picture("The phases of a worker", words)
    left = {name: MARGIN + index * (WIDTH + GAP) for index, name in enumerate(order)}
    above = {way: order.index(way[1]) - order.index(way[0]) for way in ways() if way[1] != GONE}
    below = {way: order.index(way[1]) - order.index(way[0]) for way in ways() if way[1] == GONE}
    top = 26.0 * max(above.values()) + 10
    for spans, y, side in ((above, top, 1), (below, top + HEIGHT, -1)):
        for (start, end), span in spans.items():
            share = order.index(start) / len(order)
            picture.arc(
                left[start] + WIDTH * 0.68,
                left[end] + WIDTH * (0.1 + 0.5 * share),
                y,
                side * 24.0 * (span + 0.4),
            )
    for name in order:
        picture.box(left[name], top, WIDTH, HEIGHT)
        picture.text(left[name] + WIDTH / 2, top + 18, name, "head", "middle")
    return picture.render(left[GONE] + WIDTH + MARGIN, top + HEIGHT + 18.5 * max(below.values()) + 14)


def table() -> str:
    """The same in words, for docs/how-it-works.md."""
    rows = [f"| {start} | {end} | {WORDS[start, end]} |" for start, end in ways()]
    return "\n".join(["| from | to | when |", "|---|---|---|", *rows])
