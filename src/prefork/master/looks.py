"""The one look at what workers do: for hung ones, for autoscaling, for a canary. When it is due says `Fleet.look_due_s`.

There is one timer for all three, and it runs only while somebody is awake, a canary is tried, or autoscaling has workers to spare.
"""

from __future__ import annotations

from prefork.master import autoscale, hangs, trial
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.draft import Draft


def look(draft: Draft) -> None:
    """Time has passed: have a look, if it is time for one."""
    fleet = draft.fleet
    due_s = fleet.look_due_s()
    if due_s is None or due_s > draft.now_s:
        return
    hangs.forgive_if_late(draft)
    fleet.is_looking = True
    draft.commands.append(c.LookAtPulses(with_load=fleet.rules.bounds is not None))


def seen(draft: Draft, event: e.PulsesSeen) -> None:
    """What the workers tell."""
    fleet = draft.fleet
    since_s, fleet.looked_at_s, fleet.is_looking = fleet.looked_at_s, draft.now_s, False
    hangs.seen(draft, event.pulses)
    trial.seen(draft, event)
    autoscale.seen(draft, event, since_s)
