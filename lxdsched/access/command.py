"""`lxdsched key`: makes, lists and revokes keys."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import quote

from lxdsched.access.keys import digest, key_id, new_id, new_key
from lxdsched.access.layout import with_key, without_keys
from lxdsched.access.reading import NAME_GRAMMAR, ClientsError, ClientsFault, is_name, read_clients, read_right
from lxdsched.access.store import ClientsFile, changing, read_file
from lxdsched.access.times import moment, read_end
from lxdsched.access.values import Client, Entry, Key, Right, Stranger
from lxdsched.quoting import one_line


class _Refused(Exception):  # noqa: N818
    """The command cannot be carried out; the message says why."""


def main(
    arguments: Sequence[str],
    configured: Callable[[str | None], str | None],
    unfit: Callable[[str], str | None] = lambda _path: None,
    clock: Callable[[], datetime] | None = None,
    secure: Callable[[str | None], bool] = lambda _config: False,
) -> int:
    """Run `lxdsched key`; return the exit status.

    `configured` finds the clients file of a configuration, whose own file is given or else named by the environment.
    `unfit` says why the daemon would not take a file as it is, None where it would; `secure` tells whether a
    configuration has TLS.
    """
    options = _parser().parse_args(arguments)
    now = clock() if clock else datetime.now(UTC)
    try:
        path = options.file or configured(options.config)
        if not path:
            raise _Refused("no clients file: give --file FILE, or set clients_file (LXD_MULTI_SCHEDULER_CLIENTS_FILE)")
        options.scheme = "https" if secure(options.config) else "http"
        options.run(path, options, now.astimezone(UTC).replace(microsecond=0))
        if (why := unfit(path)) is not None:
            _tell(f"But the daemon will not take the file as it is, and goes by what it has read before: {why}")
    except ClientsError as error:
        return _complain(error.faults)
    except _Refused as error:
        return _complain([str(error)])
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lxdsched key", description="The keys by which clients are known to the daemon, in its clients file."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--file", metavar="FILE", help="the clients file; without it, the configured one")
    where.add_argument("--config", "-c", metavar="FILE", help="the TOML file that says which one is configured")

    new = commands.add_parser("new", parents=[where], help="make a key for a client, old or new, and print it")
    new.add_argument("name", metavar="NAME", help="the client")
    new.add_argument("--rights", metavar="RIGHTS", help="what a new client may: schedule (the default), read, admin")
    new.add_argument(
        "--expires", metavar="WHEN", default="never", help="90d, 12h, 2027-01-31 (UTC), or never (the default)"
    )
    new.set_defaults(run=_new)

    listed = commands.add_parser("list", parents=[where], help="list the clients with what they are known by")
    listed.set_defaults(run=_list)

    revoke = commands.add_parser("revoke", parents=[where], help="revoke a key, or all keys of a client")
    revoke.add_argument("what", metavar="NAME|ID", help="the client, or the id of the key: its second part")
    revoke.set_defaults(run=_revoke)
    return parser


def _new(path: str, options: argparse.Namespace, now: datetime) -> None:
    if not is_name(options.name):
        raise _Refused(f"{options.name!r} is not a client's name, which is {NAME_GRAMMAR}")
    rights = None if options.rights is None else _rights(options.rights)
    try:
        expires = read_end(options.expires, now)
    except ValueError as error:
        raise _Refused(f"--expires {error}") from None
    with changing(path, create=True) as file:
        old = {entry.client.name: entry for entry in file.clients.entries}
        entry = old.get(options.name) or Entry(Client(options.name, rights or frozenset({Right.SCHEDULE})))
        if rights is not None and rights != entry.client.rights:
            raise _Refused(
                f"{options.name} is there already, with other rights ({_said(entry)}): change them in {path}"
            )
        taken = {key.id for each in old.values() for key in each.keys}
        unused = next(found for found in iter(new_id, "") if found not in taken)
        secret = new_key(unused)
        key = Key(unused, digest(secret), now, expires)
        expected = old | {options.name: replace(entry, keys=(*entry.keys, key))}
        file.edit(lambda text: with_key(text, entry.client, key), expected.values())
        _show(secret, unused, file)
    ends = "never ends" if expires is None else f"ends on {moment(expires)}"
    url = f"{options.scheme}://{quote(options.name, safe='')}:KEY@HOST:PORT"
    _tell(
        f"This is the key {unused} of {options.name}, which may: {_said(entry)}. It {ends}.",
        "It is shown now and never again. It is sent in a header, or in the URL by clients that know no such header:",
        "  Authorization: Bearer KEY",
        f"  {url}",
        f"{path} is {'new: the user of the daemon must be able to read it' if file.is_new else 'changed'}. "
        "The key counts once the daemon has read that.",
    )


def _show(secret: str, unused: str, file: ClientsFile) -> None:
    """Print the key, or undo it: what nobody has seen is of no use."""
    try:
        _print(secret)
    except OSError as error:
        failed = f"the key {unused} could not be printed ({error.strerror})"
        try:
            file.restore()
        except ClientsError as another:
            raise _Refused(f"{failed}, and is still there: revoke it. {another}") from None
        raise _Refused(f"{failed}, and is undone") from None


def _list(path: str, _options: argparse.Namespace, now: datetime) -> None:
    entries = read_clients(read_file(path), path).entries
    if not entries:
        _tell(f"{path}: there is no client")
        return
    rows: list[tuple[str, ...]] = [("client", "rights", "credential", "created", "expires")]
    for entry in entries:
        who = (entry.client.name, _said(entry))
        rows.extend((*who, f"key {key.id}", moment(key.created), _end(key, now)) for key in entry.keys)
        rows.extend((*who, f"certificate {each}") for each in entry.fingerprints)
        rows.extend((*who, f"name {each}") for each in entry.names)
        if not (entry.keys or entry.fingerprints or entry.names):
            rows.append((*who, "none"))
    try:
        _print("\n".join(_table(rows)))
    except OSError as error:
        raise _Refused(f"the list could not be printed: {error.strerror}") from None


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Set rows in columns. The last cell of a row may be of any length, and makes no other row wider."""
    widths: dict[int, int] = {}
    for row in rows:
        for column, cell in enumerate(row[:-1]):
            widths[column] = max(widths.get(column, 0), len(cell))
    return ["  ".join([*(cell.ljust(widths[at]) for at, cell in enumerate(row[:-1])), row[-1]]) for row in rows]


def _revoke(path: str, options: argparse.Namespace, _now: datetime) -> None:
    what = _wanted(options.what)
    with changing(path) as file:
        entries = file.clients.entries
        by_name = [entry for entry in entries if entry.client.name == what]
        by_id = [entry for entry in entries if any(key.id == what for key in entry.keys)]
        if by_name and by_id:
            raise _Refused(
                f"{what} is a client, and also a key of {by_id[0].client.name}: take it out of {path} by hand"
            )
        if not by_name and not by_id:
            raise _Refused(f"{path}: {what!r} is neither a client nor a key")
        (entry,) = by_name or by_id
        revoked = [key for key in entry.keys if by_name or key.id == what]
        left = replace(entry, keys=tuple(key for key in entry.keys if key not in revoked))
        if revoked:
            ids = {key.id for key in revoked}
            file.edit(lambda text: without_keys(text, ids), (left if each is entry else each for each in entries))
    for key in revoked:
        ends = "would never have ended" if key.expires is None else f"would have ended on {moment(key.expires)}"
        _tell(f"The key {key.id} of {entry.client.name} is revoked. It was made on {moment(key.created)}, and {ends}.")
    if not revoked:
        _tell(f"{entry.client.name} has no key.")
    _tell(f"What is left to {entry.client.name}, which may: {_said(entry)}: {_left(left)}.")
    if revoked:
        _tell(f"{path} is changed. The daemon goes by it once it has read it.")


def _wanted(what: str) -> str:
    """Return what is to be revoked; of a whole key, as it leaked somewhere, the id."""
    try:
        return key_id(what)
    except Stranger:
        return what


def _rights(text: str) -> frozenset[Right]:
    try:
        return frozenset(read_right(word.strip()) for word in text.split(","))
    except ClientsFault as fault:
        raise _Refused(f"--rights {fault}") from None


def _said(entry: Entry) -> str:
    return ", ".join(right for right in Right if right in entry.client.rights)


def _end(key: Key, now: datetime) -> str:
    if key.expires is None:
        return "never"
    return moment(key.expires) + (" (expired)" if key.expired(now) else "")


def _left(entry: Entry) -> str:
    kinds = (("key", entry.keys), ("fingerprint", entry.fingerprints), ("name in certificates", entry.names))
    counted = [f"{kind}: {len(found)}" for kind, found in kinds if found]
    return ", ".join(counted) or "nothing, it cannot come in"


def _print(text: str) -> None:
    """Print on standard output, and be sure of it. OSError when it did not get there."""
    if sys.stdout is None:  # where it was closed before we began
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    print(text, flush=True)


def _tell(*lines: str) -> None:
    if sys.stderr is not None:  # else `print` takes standard output
        with suppress(OSError):
            print("\n".join(map(one_line, lines)), file=sys.stderr, flush=True)


def _complain(faults: Sequence[str]) -> int:
    _tell(*faults)
    return 1
