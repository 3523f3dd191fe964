"""The daemon of the package answers, reads again, and is restarted while it is asked."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit
from typing import Any

from tests.system import load
from tests.system.machine import PORT, Failed, Machine, until

LOAD = "/root/load.py"
WARM = 1.0
"""Seconds under load before and after what happens."""
CLIENTS = "/etc/lxdsched/clients.toml"
TOML = "/etc/lxdsched/lxdsched.toml"


def expect(what: str, found: object, wanted: object) -> None:
    """Compare. Failed where they are not the same."""
    if found != wanted:
        raise Failed(f"{what}: {found!r}, not {wanted!r}")


def demand(machine: Machine, key: str | None = None, *, shown: bool = False) -> tuple[int, Any]:
    """Ask where an instance shall go."""
    options = ["--data", '{"cpu": 1, "memory": "1MiB"}']
    if key is not None:
        options += ["--header", f"Authorization: Bearer {key}"]
    return machine.ask("/schedule", *options, shown=shown)


@contextmanager
def loaded(machine: Machine, key: str = "", *, refused: bool = True) -> Iterator[None]:
    """Have it asked from within the container meanwhile, and show what came of it. Failed when a request was lost.

    Unless `refused`, nobody may be turned away while it does not listen, either.
    """
    machine.push(Path(load.__file__).read_bytes(), LOAD)
    asking = machine.start_in_background(f"echo $$ >/run/load.pid; exec python3 {LOAD} {PORT} {key}")
    try:
        time.sleep(WARM)
        yield
        time.sleep(WARM)
    finally:
        machine.run("kill -TERM $(cat /run/load.pid)", shown=False)
        said, _ = asking.communicate(timeout=60)
    came = json.loads(said.splitlines()[-1])
    print(f"   what came of the requests meanwhile: {came}", flush=True)
    wrong = {how: count for how, count in came.items() if not how.isdigit() or int(how) >= 500}
    if refused:
        wrong.pop("refused", None)
        wrong.pop("reset", None)
    expect("requests without an answer", wrong, {})
    if came.get("200", 0) < 10:
        raise Failed("there was hardly any load")


def answers(machine: Machine) -> None:
    """Ask it, and change something on the host behind its back."""
    status, answer = demand(machine, shown=True)
    expect("answer", (status, answer.get("host")), (200, machine.url))
    status, ready = machine.ask("/readyz")
    expect("ready", (status, ready.get("schedulable")), (200, 1))

    def allocated() -> Any:
        return machine.ask("/hosts", shown=False)[1]["hosts"][0]["cpu"]["allocated"]

    before = allocated()
    machine.lxc("init", "--empty", "runner", "-c", "limits.cpu=2", "-c", "limits.memory=64MiB")
    took = until("the new instance is seen", lambda: allocated() == before + 2, 5)
    print(f"   an instance made on the host counts after {took:.1f} s", flush=True)
    machine.lxc("delete", "runner")
    machine.run("journalctl --no-pager --unit=lxdsched --output=cat --lines=20")
    machine.run("journalctl --no-pager --unit=lxdsched --output=verbose --lines=1 | grep LXDSCHED_")
    (process,) = machine.show("MainPID")
    warnings = machine.run(f"journalctl --no-pager --quiet --output=cat --priority=warning _PID={process}")
    expect("warnings", warnings, "")


def sandbox(machine: Machine) -> None:
    """See that the running process is as confined as the unit wants it."""
    machine.run("systemd-analyze security --no-pager --threshold=15 lxdsched.service | tail -n 1")
    machine.run("systemctl show lxdsched --property=StatusText,NRestarts,MemoryCurrent,TasksCurrent")
    (process,) = machine.show("MainPID")
    facts = machine.run(
        f"grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/{process}/status; grep files /proc/{process}/limits"
    )
    # Root in the container cannot have more open files than we may.
    files = str(min(65536, getrlimit(RLIMIT_NOFILE)[1]))
    for fact in (
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        f" {files} ",
    ):
        if fact not in facts:
            raise Failed(f"the daemon is without {fact!r}")
    # What a process in there could do, tried by one that is started in the same way.
    inside = f"nsenter --target={process} --mount --"
    machine.run(f"{inside} test -d /var/lib/lxdsched")
    machine.run(f"! {inside} touch /usr/lib/lxdsched/x && ! {inside} touch /etc/lxdsched/x")
    machine.run("stat --format='%a %U %n' /var/lib/lxdsched /run/lxdsched")


def _new_key(machine: Machine, name: str) -> str:
    return machine.run(f"lxdsched key new {name} --file {CLIENTS} 2>/dev/null").splitlines()[0]


def reload(machine: Machine) -> None:
    """Turn access control on, and change who may come in while it runs."""
    first = _new_key(machine, "shoes-1")
    machine.run(f"chgrp lxdsched {CLIENTS} && chmod 0640 {CLIENTS}")
    machine.run(f"sed -i 's|^#clients_file|clients_file|' {TOML} && lxdsched-check && systemctl restart lxdsched")
    expect("without a key", demand(machine, shown=True)[0], 401)
    expect("with a key", demand(machine, first, shown=True)[0], 200)
    (process,) = machine.show("MainPID")
    second = _new_key(machine, "shoes-2")
    reader = _new_key(machine, "prometheus --rights read")
    machine.run("systemctl reload lxdsched")
    took = until("the new key counts", lambda: demand(machine, second)[0] == 200, 3)
    print(f"   the new key counts {took:.1f} s after the reload", flush=True)
    machine.run(f"cp -a {CLIENTS} /root/clients.toml && echo '[' >>{CLIENTS} && systemctl reload lxdsched")
    time.sleep(1)
    expect("with a faulty file", (demand(machine)[0], demand(machine, second)[0]), (401, 200))
    machine.run("journalctl --no-pager --unit=lxdsched --output=cat --lines=3")
    machine.run(f"cp -a /root/clients.toml {CLIENTS} && lxdsched key revoke shoes-1 --file {CLIENTS}")
    machine.run("systemctl reload lxdsched")
    until("the old key counts no longer", lambda: demand(machine, first)[0] == 401, 3)
    _other_hosts(machine, reader)
    expect("process", machine.show("MainPID", "NRestarts", "ActiveState"), (process, "0", "active"))
    machine.run(f"sed -i 's|^clients_file|#clients_file|' {TOML} && rm {CLIENTS} && systemctl restart lxdsched")


def _other_hosts(machine: Machine, key: str) -> None:
    """Change what is for all hosts, and have it taken over without a restart."""

    def capacity() -> Any:
        header = ("--header", f"Authorization: Bearer {key}")
        return machine.ask("/hosts", *header, shown=False)[1]["hosts"][0]["cpu"]["capacity"]

    before = capacity()
    machine.run(f"sed -i 's|^over_commit_percent = .*|over_commit_percent = 5000|' {TOML} && lxdsched-check")
    machine.run("systemctl reload lxdsched")
    took = until("the host has another capacity", lambda: capacity() == before / 2, 10)
    print(f"   the host's other capacity counts {took:.1f} s after the reload", flush=True)


def restart(machine: Machine) -> None:
    """Restart it twice while it is asked."""
    with loaded(machine):
        for _ in range(2):
            start = time.monotonic()
            machine.run("systemctl restart lxdsched")
            print(f"   restarted, and ready again, in {time.monotonic() - start:.1f} s", flush=True)


def socket(machine: Machine) -> None:
    """Have systemd listen, as docs/debian.md says, and restart it while it is asked."""
    machine.run("systemctl stop lxdsched")
    machine.run(f"sed -i '1i endpoint = \"systemd:domain=INET:index=0\"' {TOML}")
    machine.run("lxdsched-check", status=0)
    machine.run("systemctl enable --now lxdsched.socket && systemctl start lxdsched")
    with loaded(machine, refused=False):
        for _ in range(2):
            machine.run("systemctl restart lxdsched")
    expect("active", machine.run("systemctl is-active lxdsched.socket lxdsched.service"), "active\nactive")
