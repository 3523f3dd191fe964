"""What hostile clients cost an honest one, and the daemon.

A daemon over 50 simulated hosts is attacked by 1,000 half-open clients, 1,000 slow ones and 200 flooding ones, each
group by itself and all at once, from one address a group and from 200; without TLS and with it, without access control
and with it. Meanwhile an honest
client at another address asks for places and gives them back, by turns on a connection that it keeps and on new ones.
All of that comes round several times, so that whatever else the machine does falls on all alike.

Printed are, of `POST /schedule` on kept and on new connections, the median and the 95th and 99th percentile in
milliseconds, each followed by its ratio to that without an attack, and how many requests were not answered as they
should be; how many milliseconds the daemon worked, for whomever, until an answer (median, 95th percentile); its memory
(MiB), what of it is still taken afterwards, its descriptors, what its clients do not take (MiB, in the kernel) and its
CPU time, at worst; and of the attackers, for each second, the connections, the requests, the answers that were not
refusals, the connections that were dropped, and the refusals by status. They keep to the last CPU,
daemon and honest client to the first.

    python benchmarks/hostile_clients.py [SECONDS [ROUNDS [SETTING=VALUE ...]]]
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from itertools import product

from tests.e2e.honest import quantiles
from tests.e2e.hostile import Plan
from tests.e2e.replicas import simulated
from tests.e2e.siege import MIB, Besieged, Readings, Round, besieged

HOSTS = 50
HALF_OPEN, SLOW, FLOODING = 1000, 1000, 200
ATTACKS: dict[str, Plan | None] = {
    "no attack": None,
    "half-open": Plan(0, half_open=HALF_OPEN),
    "slow": Plan(0, slow=SLOW),
    "flooding, 1 address": Plan(0, flooding=FLOODING),
    "flooding, 200": Plan(0, flooding=FLOODING, addresses=200),
    "all, 1 address each": Plan(0, half_open=HALF_OPEN, slow=SLOW, flooding=FLOODING),
    "all, 200 each": Plan(0, half_open=HALF_OPEN, slow=SLOW, flooding=FLOODING, addresses=200),
}
HONEST = f"{'asked':>7}" + "".join(f"{name:>9}{'x':>6}" for name in ("median", "p95", "p99"))
DAEMON = f"{'failed':>8}{'work':>9}{'p95':>8}{'MiB':>6}{'left':>6}{'fds':>6}{'untaken':>9}{'CPU':>6}"
ATTACKERS = f"{'conns/s':>9}{'asked/s':>9}{'200/s':>8}{'drops/s':>9}  refused/s"
OK = "200"


def figures(times: Sequence[float], calm: Sequence[float]) -> str:
    if not times:
        return f"{0:>7}" + f"{'-':>15}" * 3
    pairs = zip(quantiles(times), quantiles(calm), strict=True)
    return f"{len(times):>7}" + "".join(f"{now * 1000:>9.1f}{now / then:>6.1f}" for now, then in pairs)


def row(name: str, rounds: Sequence[Round], calm: Sequence[Round], left: int) -> str:
    kept, new = (
        figures(
            [each for seen in rounds for each in getattr(seen.honest, kind)],
            [each for seen in calm for each in getattr(seen.honest, kind)],
        )
        for kind in ("kept", "new")
    )
    worst = Readings(0, 0, 0)
    for seen in rounds:
        worst = worst.worst(seen.most)
    work = quantiles([each for seen in rounds for each in seen.honest.work] or [float("nan")])
    seconds = sum(seen.attacked for seen in rounds) or 1.0
    failed = sum(len(seen.honest.failures) for seen in rounds)
    answers: Counter[str] = Counter()
    for seen in rounds:
        answers.update(seen.answers)
    done = answers.pop(OK, 0)
    connected, asked, dropped = (
        sum(seen.every(what) for seen in rounds) / seconds for what in ("connected", "requests", "dropped")
    )
    worked = f"{work[0] * 1000:>9.1f}{work[1] * 1000:>8.1f}"
    refused = ", ".join(f"{status}: {number / seconds:.0f}" for status, number in sorted(answers.items())) or "-"
    return (
        f"{name:<20}{kept} |{new} |{failed:>8}{worked}"
        f"{worst.resident / MIB:>6.0f}{left / MIB:>+6.0f}{worst.descriptors:>6}"
        f"{worst.untaken / MIB:>9.1f}{max(seen.on_cpu / seen.seconds for seen in rounds):>6.0%} |"
        f"{connected:>9.0f}{asked:>9.0f}{done / seconds:>8.0f}{dropped:>9.0f}  {refused}"
    )


def measure(running: Besieged, seconds: float, rounds: int) -> None:
    running.round(1)
    seen: dict[str, list[Round]] = {name: [] for name in ATTACKS}
    left: dict[str, int] = dict.fromkeys(ATTACKS, 0)
    rest = running.read()
    for _ in range(rounds):
        for name, plan in ATTACKS.items():
            before = running.read().resident
            seen[name].append(running.round(seconds, plan))
            left[name] += running.settle(rest.descriptors + 16).resident - before
    for name, those in seen.items():
        print(row(name, those, seen["no attack"], left[name]), flush=True)
    for line in running.troubles():
        print(f"  the log says: {line.strip()}")
    for failure in sorted({failure for those in seen.values() for each in those for failure in each.honest.failures})[
        :5
    ]:
        print(f"  the honest client was told: {failure}")


def main(seconds: float = 10.0, rounds: int = 3, *settings: str) -> None:
    options = dict(setting.split("=", 1) for setting in settings)
    print(f"{'':<20}{HONEST} |{HONEST} |{DAEMON} |{ATTACKERS}")
    with simulated(HOSTS, 64) as fleet:
        for tls, guarded in product((False, True), (False, True)):
            print(f"with{'' if tls else 'out'} TLS, with{'' if guarded else 'out'} access control")
            with besieged(fleet.hosts, tls=tls, guarded=guarded, over_commit_percent=1000, **options) as running:
                measure(running, seconds, rounds)


if __name__ == "__main__":
    numbers = [kind(given) for kind, given in zip((float, int), sys.argv[1:3], strict=False)]
    main(*numbers, *sys.argv[3:])
