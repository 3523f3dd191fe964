"""The package comes, is configured, upgraded, removed and purged."""

from __future__ import annotations

from datetime import UTC, datetime

from lxdsched.sandbox.certs import make_certificate
from tests.system.machine import Failed, Machine, until
from tests.system.serve import demand, expect, loaded

FAULTY = "78"

APT = "DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0"

PERMISSIONS = """\
750 root:lxdsched /etc/lxdsched
700 root:root /etc/lxdsched/keys
640 root:lxdsched /etc/lxdsched/lxdsched.toml"""


def install(machine: Machine, package: str) -> None:
    """Install the package where it has never been."""
    machine.run(f"{APT} install -y {package}")
    expect("user", machine.run("id --name --user lxdsched"), "lxdsched")
    paths = "/etc/lxdsched /etc/lxdsched/keys /etc/lxdsched/lxdsched.toml"
    expect("permissions", machine.run(f"stat --format='%a %U:%G %n' {paths}"), PERMISSIONS)
    for unit in ("lxdsched.service", "lxdsched.socket"):
        expect(f"{unit} enabled", machine.run(f"systemctl is-enabled {unit}", status=1), "disabled")
        expect(f"{unit} active", machine.run(f"systemctl is-active {unit}", status=3), "inactive")
    machine.run("lxdsched --version && test ! -e /var/lib/lxdsched")
    expect("what the package has changed", machine.run("dpkg --verify lxdsched"), "")


def unconfigured(machine: Machine) -> None:
    """Start it as it comes."""
    machine.run("lxdsched-check", status=1)
    machine.run("systemctl start lxdsched", status=1)
    expect("state", machine.show("ActiveState", "ExecMainStatus", "NRestarts"), ("failed", FAULTY, "0"))
    said = machine.run("journalctl --no-pager --unit=lxdsched --output=cat")
    if "hosts: names no host" not in said:
        raise Failed("the log does not say that hosts are missing")
    machine.run("systemctl reset-failed lxdsched")


def configure(machine: Machine) -> None:
    """Do what docs/debian.md says, and start."""
    pair = make_certificate("lxdsched", now=datetime.now(UTC), client=True)
    certificate, _ = pair.write(machine.directory, "scheduler")
    machine.lxc("config", "trust", "add", str(certificate))
    machine.push(pair.cert_pem, "/etc/lxdsched/client.crt")
    machine.push(pair.key_pem, "/etc/lxdsched/keys/client.key", "0600")
    fingerprint = machine.lxc("query", "/1.0").split('"certificate_fingerprint": "')[1].split('"')[0]
    file = "/etc/lxdsched/lxdsched.toml"
    line = f'{{host = "{machine.url}", fingerprint = "{fingerprint}"}},'
    machine.run(f"sed -i 's|^    #{{host = \"https://192.0.2.1.*|    {line}|' {file}")
    # The test has one small LXD, and asks for more than that has.
    machine.run(f"sed -i 's|^#over_commit_percent = .*|over_commit_percent = 10000|' {file}")
    machine.run("lxdsched-check")
    machine.run("systemctl enable --now lxdsched")
    machine.run("systemctl status --no-pager lxdsched")


def upgrade(machine: Machine, package: str) -> None:
    """Install the newer version while it is asked."""
    before = machine.run("dpkg-query --show --showformat='${Version}' lxdsched")
    configuration = machine.run("cat /etc/lxdsched/lxdsched.toml", shown=False)
    (process,) = machine.show("MainPID")
    with loaded(machine):
        machine.run(f"{APT} install -y {package}")
        until("it is up", lambda: demand(machine)[0] == 200)
    after = machine.run("dpkg-query --show --showformat='${Version}' lxdsched")
    if before == after or machine.show("MainPID") in {(process,), ("0",)}:
        raise Failed("it was not upgraded, or not restarted")
    expect("version", machine.run("lxdsched --version"), f"lxdsched {after}")
    expect("configuration", machine.run("cat /etc/lxdsched/lxdsched.toml", shown=False), configuration)
    expect("enabled", machine.run("systemctl is-enabled lxdsched"), "enabled")


def remove(machine: Machine) -> None:
    """Remove it while it runs, with its socket."""
    machine.run(f"{APT} remove -y lxdsched")
    expect(
        "active", machine.run("systemctl is-active lxdsched.service lxdsched.socket", status=None), "inactive\ninactive"
    )
    machine.run(
        "test -e /etc/lxdsched/lxdsched.toml && test -e /etc/lxdsched/keys/client.key && test -e /var/lib/lxdsched"
    )
    machine.run(
        "test ! -e /usr/lib/lxdsched && test ! -e /usr/bin/lxdsched && ! find /proc -maxdepth 1 -user lxdsched | grep ."
    )


def again(machine: Machine, package: str) -> None:
    """Install what was removed."""
    machine.run(f"{APT} install -y {package}")
    machine.run("systemctl start lxdsched.socket lxdsched.service")
    status, _ = machine.ask("/healthz")
    expect("health", status, 200)


def purge(machine: Machine) -> None:
    """Remove it with all that it had."""
    machine.run(f"{APT} purge -y lxdsched")
    left = machine.run(
        "find / -xdev -name '*lxdsched*' -not -path '/proc/*' -not -path '/root/*' -not -path '/var/log/*'", status=None
    )
    expect("files that are left", left, "")
    expect("units that are left", machine.run("systemctl list-units --all --no-legend 'lxdsched*'"), "")
    machine.run("getent passwd lxdsched && ! find /proc -maxdepth 1 -user lxdsched | grep .")
    machine.run("systemctl is-failed lxdsched", status=None)
    expect("what dpkg knows", machine.run("dpkg-query --show lxdsched 2>/dev/null", status=1), "")
