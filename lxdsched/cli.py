"""The `lxdsched` command: what is done beside the daemon, which `twistd lxdsched` runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lxdsched import __version__
from lxdsched.quoting import one_line
from lxdsched.spelling import counted

if TYPE_CHECKING:
    from lxdsched.config import Config


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command; return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="lxdsched", description="Beside the daemon itself, which `twistd -n lxdsched` runs."
    )
    parser.add_argument("--version", action="version", version=f"lxdsched {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    check = commands.add_parser("check", help="read the configuration and say what is wrong with it")
    check.add_argument("--config", "-c", metavar="FILE", help="the TOML file")
    commands.add_parser("health", help="ask the daemon of this configuration whether it is well")
    commands.add_parser("key", help="make, list and revoke the keys of clients")
    commands.add_parser("sandbox", help="start a simulated LXD fleet to try the daemon on")
    commands.add_parser("trust", help="show, accept or forget the certificates of hosts that are trusted on first use")
    if arguments[:1] == ["sandbox"]:
        from lxdsched.sandbox.command import main as sandbox  # not needed by anything else

        return sandbox(arguments[1:])
    if arguments[:1] == ["key"]:
        from lxdsched.access.command import main as key

        return key(arguments[1:], _clients_file, _unfit, secure=_secure)
    if arguments[:1] == ["health"]:
        from lxdsched.health_command import main as health  # nor is this

        return health(arguments[1:])
    if arguments[:1] == ["trust"]:
        from lxdsched.trust_command import main as trust  # nor is this

        return trust(arguments[1:])
    return _check(parser.parse_args(arguments).config)


def _check(file: str | None) -> int:
    from lxdsched.config import ConfigError, Sources, load
    from lxdsched.plugins import strategies

    try:
        config = load(Sources({}, os.environ, file), strategies())
    except ConfigError as error:
        for line in (*error.faults, *(f"warning: {warning}" for warning in error.warnings)):
            print(one_line(line), file=sys.stderr)
        return 1
    now = datetime.now(UTC)
    ends = [
        complaint
        for each in (*config.certificates, *config.guard.certificates)
        if (complaint := each.complaint(now)) is not None
    ]
    for warning in (*config.warnings, *_exposed(config), *ends):
        print(one_line(f"warning: {warning}"), file=sys.stderr)
    clients = config.guard.clients
    known = "" if clients is None else f", {counted(len(clients.entries), 'client')}"
    print(f"the configuration is good: {counted(len(config.hosts), 'host')}, strategy {config.strategy}{known}")
    return 0


def _exposed(config: Config) -> list[str]:
    """Say what the daemon will, once it listens, of who can connect."""
    from lxdsched.listener.reach import exposure, open_to_others

    secure = config.guard.tls is not None
    where = open_to_others(config.listening.endpoint, secure=secure)
    said = where and exposure(where, guarded=config.guard.clients is not None, secure=secure)
    return [said] if said else []


def _clients_file(config: str | None) -> str | None:
    """Find the clients file of a configuration. SystemExit, with what is wrong, when that cannot be read."""
    from lxdsched.config import ConfigError, Sources, find

    try:
        _, path = find(Sources({}, os.environ, config), "clients_file")
    except ConfigError as error:
        raise SystemExit("\n".join(error.faults)) from None
    return None if path is None else str(path)


def _secure(config: str | None) -> bool:
    """Tell whether a configuration has TLS; not where that cannot be read."""
    from lxdsched.config import ConfigError, Sources, find

    try:
        return find(Sources({}, os.environ, config), "tls_cert")[1] is not None
    except ConfigError:
        return False


def _unfit(path: str) -> str | None:
    """Say why the daemon would refuse a clients file for who can get at it; None when it would not."""
    from lxdsched.config.files import Files
    from lxdsched.config.values import Fault

    try:
        # Whose it is to be is not known here.
        Files(None, allow_exposed=False, owner=os.stat(path).st_uid).read_secret(path, named=True)
    except OSError:
        return None
    except Fault as fault:
        return str(fault)
    return None
