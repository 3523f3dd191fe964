"""`lxdsched trust`: shows which certificates hosts on first use are known by, and accepts or forgets them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import NoReturn

import msgspec

from lxdsched.config import SETTINGS, ConfigError, Sources, find
from lxdsched.config.hosts import address
from lxdsched.config.state import find_state_directory
from lxdsched.config.values import Fault
from lxdsched.tls import IdentityError, read_fingerprint
from lxdsched.trust import records
from lxdsched.trust.directory import StoreError
from lxdsched.trust.file import TrustFile
from lxdsched.trust.records import Hosts, Known, Shown, offered

PATIENCE = 10.0
"""Seconds that a lock is waited for which a daemon holds."""


class Refused(Exception):  # noqa: N818
    """What was asked for cannot be done; the message says why."""


def main(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run `lxdsched trust` with these arguments; return the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        file = TrustFile(_directory(arguments, os.environ if environment is None else environment))
        arguments.run(file, arguments)
    except ConfigError as error:
        print(error, file=sys.stderr)
    except (Refused, StoreError, Fault) as error:
        print(f"lxdsched trust: {error}", file=sys.stderr)
    else:
        return 0
    return 1


def _parser() -> argparse.ArgumentParser:
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--state-directory", metavar="DIR", help="where it is remembered; else as the daemon finds it")
    where.add_argument("--config", "-c", metavar="FILE", help="the TOML file that may say where")
    parser = argparse.ArgumentParser(
        prog="lxdsched trust", description="The certificates that hosts on first use are known by."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[TrustFile, argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, parents=[where], help=text, description=f"{text[0].upper()}{text[1:]}.")
        made.set_defaults(run=run)
        return made

    listing = command("list", _list, "show every host that is known, and what it shows instead of what is trusted")
    listing.add_argument("--json", action="store_true", help="for programs")
    accept = command("accept", _accept, "trust the certificate that a host has shown last, or one that it is to show")
    accept.add_argument("host", metavar="HOST", help="as the configuration or `list` has it")
    accept.add_argument("--fingerprint", metavar="FP", help="its SHA-256; needed where nobody can be asked")
    forget = command("forget", _forget, "forget a host, whose next certificate is then trusted as the first one was")
    forget.add_argument("host", metavar="HOST", help="as the configuration or `list` has it")
    return parser


def _directory(arguments: argparse.Namespace, environment: Mapping[str, str]) -> str:
    setting = next(each for each in SETTINGS if each.name == "state_directory")
    given = arguments.state_directory
    options = {} if given is None else {setting.option: given}
    source, value = find(Sources(options, environment, arguments.config), setting.name)
    _, directory = find_state_directory(source, value, environment)
    if directory is None:
        raise Refused(
            f"no state directory is set, so nothing is remembered: give the daemon's with --{setting.option}, "
            f"{setting.variable} or the file's {setting.name} (for a systemd service it is below /var/lib)"
        )
    return directory


def _list(file: TrustFile, arguments: argparse.Namespace) -> None:
    hosts = file.read() or {}
    if arguments.json:
        rows = [{"host": url, **msgspec.to_builtins(known)} for url, known in sorted(hosts.items())]
        print(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
        return
    if not hosts:
        print(f"no host is known in {file.path}")
    for url, known in sorted(hosts.items()):
        print(url)
        _show(known)
        if known.offered is not None:
            print(f"  to trust it: lxdsched trust accept {url}")


def _show(known: Known) -> None:
    by = "on first use" if known.by == "first_use" else "accepted by a person"
    print(f"  trusted  {known.fingerprint}\n           since {_moment(known.since)}, {by}")
    if known.offered is not None:
        _show_offered(known.offered)


def _show_offered(shown: Shown) -> None:
    print(f"  REFUSED  {shown.fingerprint}\n           shown first on {_moment(shown.at)}")
    said = [shown.subject or "no subject"]
    said.append(f"for {', '.join(shown.names)}" if shown.names else "without alternative names")
    if shown.not_before is not None and shown.not_after is not None:
        said.append(f"valid from {shown.not_before:%Y-%m-%d} to {shown.not_after:%Y-%m-%d}")
    print("           it says of itself: " + "\n           ".join(said))


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _accept(file: TrustFile, arguments: argparse.Namespace) -> None:
    given = None if arguments.fingerprint is None else _fingerprint(arguments.fingerprint)
    hosts = file.read() or {}
    url = _find(arguments.host, hosts, new=given is not None)
    known = hosts.get(url)
    wanted = given or _waiting(url, known)
    if known is None:
        print(f"{url} is not known yet; this is the certificate that it must show:\n  {wanted}")
    else:
        print(url)
        _show(known)
        if wanted not in {known.fingerprint, offered(known)}:
            raise Refused(
                f"{wanted} is not what {url} has shown. To trust it before it is shown, forget the host first, "
                "then accept it"
            )
        if given is None:
            _confirm(wanted)
    seen = None if known is None else (known.fingerprint, offered(known))
    file.update(partial(_accepted, url, wanted, seen), PATIENCE)
    print(f"{url} is trusted with {wanted} alone; a running daemon takes that over by itself")


def _accepted(url: str, fingerprint: str, seen: tuple[str, str | None] | None, before: Hosts | None) -> Hosts:
    known = (before or {}).get(url)
    if seen != (None if known is None else (known.fingerprint, offered(known))):
        raise Refused(f"{url} has shown another certificate meanwhile: look at it again")
    return records.accept(before or {}, url, fingerprint, _now())


def _waiting(url: str, known: Known | None) -> str:
    if known is None or known.offered is None:
        raise Refused(f"{url} shows what is trusted, as far as is known: nothing waits to be accepted")
    return known.offered.fingerprint


def _confirm(fingerprint: str) -> None:
    if not sys.stdin.isatty():
        raise Refused(f"nobody can be asked here: say --fingerprint {fingerprint} if that is the right one")
    print("Compare it with what `lxc info | grep certificate_fingerprint` says on the host itself.")
    try:
        answer = input("Trust it from now on, and not the other one any more? [y/N] ")
    except (EOFError, KeyboardInterrupt):
        print()
        answer = ""
    if answer.strip().lower() not in {"y", "yes"}:
        raise Refused("nothing was changed")


def _forget(file: TrustFile, arguments: argparse.Namespace) -> None:
    url = _find(arguments.host, file.read() or {}, new=False)

    def without(before: Hosts | None) -> Hosts:
        return records.forget(before or {}, url)

    file.update(without, PATIENCE)
    print(
        f"{url} is forgotten. If it is still configured without a pin, whatever certificate it shows next is trusted "
        f"from then on; to say which that must be, `lxdsched trust accept {url} --fingerprint FP`"
    )


def _find(host: str, hosts: Hosts, *, new: bool) -> str:
    """Return the URL of the host that is meant: one that is known, or, with `new`, one that may be."""
    url = address(host)
    if url in hosts:
        return url
    place = url.rpartition(":")[0]
    if place == f"https://{host.lower()}":  # no port was given, and it may be configured with one
        alike = [each for each in sorted(hosts) if each.rpartition(":")[0] == place]
        if len(alike) == 1:
            return alike[0]
        if alike:
            _refuse(f"{host} may be any of these; say which:", alike)
    if new:
        return url
    return _refuse(f"{host} is not known. These are:" if hosts else f"{host} is not known, and no other is", hosts)


def _refuse(text: str, hosts: Sequence[str] | Hosts) -> NoReturn:
    raise Refused("\n  ".join([text, *sorted(hosts)]))


def _fingerprint(text: str) -> str:
    try:
        return read_fingerprint(text)
    except IdentityError as error:
        raise Refused(f"--fingerprint {text} {error}") from None


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
