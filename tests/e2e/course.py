"""What happens to a Redis under load, when, and what may be told meanwhile."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from tests.e2e.load import Load, heedless, overbooked
from tests.e2e.replicas import ASKED, CORES, Replicas, soon

SECONDS = float(os.environ.get("LXDSCHED_FAULT_SECONDS", "0.3"))
"""How long a fault lasts once it is noticed, and how long all is well before and after it."""
TIMEOUT = float(os.environ.get("LXDSCHED_REDIS_TIMEOUT", "0.75"))
"""The ledger's deadline, in seconds. It is longer than that of the daemon by itself: a machine that is busy with other
things is not to look like a Redis that is gone."""
PATIENT = f"--redis-timeout={TIMEOUT}"
LONGEST = TIMEOUT + 3.0
"""Seconds that no request waits, however busy the machine is."""
CLIENTS, KEEP = 8, 6
"""On four hosts they want more than there is, so that whoever counts wrongly gives something away twice."""

REFUSED = frozenset({"ledger_unavailable"})
"""The codes of answers that are refused because of Redis."""


@dataclass
class Course:
    """When the fault came, all daemons had noticed it, it went, and all were well again, by time.monotonic."""

    struck: float = 0.0
    noticed: float = 0.0
    mended: float = 0.0
    back: float = 0.0


def show(name: str, load: Load, course: Course) -> None:
    """Print what came of it."""
    answers = load.answers
    well = [each for each in answers if each.asked >= course.mended and not each.degraded and each.code not in REFUSED]
    again = [min((each.came for each in well if each.port == port), default=course.back) for port in load.ports]
    firm = overbooked([each for each in answers if not each.degraded], CORES, ASKED)
    every = overbooked(answers, CORES, ASKED)
    print(
        f"\n{name}: {len(answers)} answers, {sum(each.degraded for each in answers)} degraded, "
        f"{dict(Counter(each.code for each in answers if not each.placed))}; longest "
        f"{max(each.took for each in answers) * 1000:.0f} ms, DELETE "
        f"{max((took for _, _, took in load.returns), default=0) * 1000:.0f} ms; "
        f"shared again after {max(again) - course.mended:.2f} s; "
        f"overbooked by {sum(firm.values())} cores, with degraded answers {sum(every.values())}"
    )


def agreed(both: Replicas) -> set[str]:
    """Wait until all daemons list the same reservations; return their ids."""
    soon(lambda: len({frozenset(each) for each in both.listed()}), 1)
    return both.listed()[0]


def check_answers(
    load: Load,
    course: Course,
    more: Collection[str] = frozenset(),
    statuses: Collection[int] = frozenset({204, 404}),
) -> None:
    """Hold what was told against what may be told; `more` are further codes, `statuses` those of DELETE."""
    answers = load.answers
    assert load.unanswered == []
    assert {each.code for each in answers if not each.placed} <= {"no_capacity", *more}
    assert {status for _, status, _ in load.returns} <= set(statuses)
    assert max(each.took for each in answers) < LONGEST
    assert max(took for _, _, took in load.returns) < LONGEST
    assert overbooked([each for each in answers if not each.degraded], CORES, ASKED) == {}
    assert heedless(answers, course.back, CORES, ASKED) == []
    assert not any(each.degraded for each in answers if each.asked >= course.back or each.came <= course.struck)
