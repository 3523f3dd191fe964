"""What the replicas tell each other through Redis: reservations as JSON, and the answers of the script.

docs/redis.md describes keys and values. A record is read by replicas of other versions too: what they do not know in
it, they ignore.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from lxdsched.model import Demand, InstanceType, Kind, Reservation, Resources
from lxdsched.quoting import cut, quoted
from lxdsched.repeats import RequestKey
from lxdsched.repeats import read as read_key

_MOST_SAID = 200
"""Characters of what is wrong, which may quote what was found."""

KEYS = ("state", "records", "seen", "hosts", "changed", "ends", "requests", "released")
"""The names of the keys behind the prefix, in the order in which the script wants them."""

_MOST_AMOUNT = 1 << 63
_MOST_RECORD = 1 << 20
"""Bytes of a record, which names thousands of hosts at most."""
_MOST_ID = 100
MOST_TEXT = 4096
"""Characters of a text in a record, bytes of a host's name: more than any has."""
_MOST_LABEL = 512
MOST_ON_HOST = 10_000
"""Reservations of a host of which an answer tells: more than any machine has threads. Of more, the youngest count."""
MOST_TOLD = 2 * MOST_ON_HOST
"""Reservations and hosts of which one answer tells. The script tells of a tenth, and one host more."""
_MOST_TIME = 1 << 44
"""Milliseconds since the epoch that are beyond all times: some five hundred years."""


class RecordError(ValueError):
    """What was found in Redis is not ours; the message says what is wrong with it."""


class _Kind(msgspec.Struct, omit_defaults=True):
    resource_type: str | None = None
    image_alias: str | None = None


class _Demand(msgspec.Struct, omit_defaults=True):
    instance_type: InstanceType = InstanceType.CONTAINER
    architecture: str | None = None
    pool: _Kind | None = None
    instance_name: str | None = None
    request_id: str | None = None  # the whole key's text
    client: str | None = None


class _Record(msgspec.Struct):
    expires: int
    cpu: int
    memory: int
    promised: bool
    created: int
    host: str
    candidates: list[str]
    by: str
    demand: _Demand


@dataclass(frozen=True, slots=True)
class Entry:
    """A reservation as Redis has it. `label` is that of the instance which has taken it over, None when none has."""

    id: str
    record: bytes
    label: str | None


@dataclass(frozen=True, slots=True)
class HostState:
    """All living reservations of a host, oldest first, as of a version; `more` are older ones that were passed over."""

    host: str
    version: int
    entries: Sequence[Entry]
    more: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """What the script answers. `time` is Redis' clock in milliseconds; `hosts` are those that have changed.

    `detail` is the id of a reservation, or when this run of the server was first joined, by that clock.
    """

    epoch: str
    version: int
    time: int
    outcome: str
    detail: str
    hosts: Sequence[HostState]

    @property
    def founded(self) -> int:
        """When this run of the server was first joined, by its clock in milliseconds. ValueError for other answers."""
        return int(self.detail)


def keys(prefix: str) -> tuple[str, ...]:
    """Name the keys; the braces put them into one slot of a Redis Cluster."""
    return tuple(f"{{{prefix}}}:{name}" for name in KEYS)


def read_reply(said: Any) -> Reply:
    """Read what the script has answered. RecordError when it is not what it answers."""
    try:
        epoch, version, time, outcome, detail, hosts = said
        if sum(1 + min(len(entries) // 3, MOST_ON_HOST) for _, _, entries in hosts) > MOST_TOLD:
            raise ValueError("it tells of too much at once")
        reply = Reply(
            epoch.decode(),
            int(version),
            int(time),
            outcome.decode(),
            detail.decode(),
            [
                HostState(
                    host.decode(),
                    int(since),
                    _youngest(entries),
                    max(len(entries) // 3 - MOST_ON_HOST, 0),
                )
                for host, since, entries in hosts
                if len(host) <= MOST_TEXT
            ],
        )
        if not 0 <= reply.time <= _MOST_TIME or (reply.outcome == "joined" and reply.founded > reply.time):
            raise ValueError("it is at another time")
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        why = cut(str(error), _MOST_SAID)
        raise RecordError(f"the ledger's script has answered what it never answers ({why})") from None
    return reply


def _youngest(said: Sequence[Any]) -> list[Entry]:
    if len(said) % 3:
        raise ValueError("it tells of a part of a reservation")
    there = said[-3 * MOST_ON_HOST :]
    return [
        Entry(each[0].decode(), _bytes(each[1]), _label(each[2]))
        for each in zip(there[::3], there[1::3], there[2::3], strict=True)
    ]


def _label(said: bytes) -> str | None:
    """Read a label. One that no instance has is none."""
    return said.decode() or None if len(said) <= _MOST_LABEL else None


def _bytes(said: object) -> bytes:
    if not isinstance(said, bytes):
        raise TypeError("a record is no text")
    return said


def kind(pool: Kind | None) -> bytes:
    """Write a kind of pool instance as the script reads it; nothing when it is None."""
    return b"" if pool is None else msgspec.json.encode(_kind(pool))


def request(key: RequestKey | None) -> str:
    """Write the key of a request as the script reads it; nothing when it is None."""
    return "" if key is None else key.text()


def rest(demand: Demand, candidates: Sequence[str], by: str) -> bytes:
    """Write what the script does not look at: the end of a record, which the script begins."""
    said = {"candidates": candidates, "by": by, "demand": _demand(demand)}
    return msgspec.json.encode(said)[1:]


def read(entry: Entry, now: float, time: int) -> Reservation:
    """Read a record; `now` is this process's clock at the moment at which Redis' clock was `time`.

    RecordError when it is not one.
    """
    try:
        if len(entry.record) > _MOST_RECORD:
            raise ValueError("it is too long")
        if len(entry.id) > _MOST_ID:
            raise ValueError("its id is too long")
        said = msgspec.json.decode(entry.record, type=_Record)
        if not 0 <= said.created <= said.expires <= _MOST_TIME:
            raise ValueError("it is of another time")
        if not (0 <= said.cpu < _MOST_AMOUNT and 0 <= said.memory < _MOST_AMOUNT):
            raise ValueError("it claims what nobody has")
        if any(len(text or "") > MOST_TEXT for text in _texts(said)):
            raise ValueError("a text in it is too long")
    except (ValueError, RecursionError) as error:  # msgspec's errors are such
        why = cut(str(error), _MOST_SAID)
        raise RecordError(f"the record of reservation {quoted(entry.id)} cannot be read: {why}") from None
    resources = Resources(said.cpu, said.memory)
    pool = None if said.demand.pool is None else Kind(said.demand.pool.resource_type, said.demand.pool.image_alias)
    named = None if said.demand.request_id is None else read_key(said.demand.request_id)
    client, request_id = (said.demand.client, None) if named is None else (named.client, named.request_id)
    place = said.candidates.index(said.host) + 1 if said.host in said.candidates else 0
    return Reservation(
        id=entry.id,
        host=said.host,
        resources=resources,
        created_at=now + (said.created - time) / 1000,
        expires_at=now + (said.expires - time) / 1000,
        instance_name=said.demand.instance_name,
        request_id=request_id,
        pool=pool if said.promised else None,
        alternates=tuple(said.candidates[place:]),
        demand=Demand(
            resources,
            instance_type=said.demand.instance_type,
            architecture=said.demand.architecture,
            pool=pool,
            instance_name=said.demand.instance_name,
            request_id=request_id,
            client=client,
        ),
        client=client,
    )


def _texts(said: _Record) -> Sequence[str | None]:
    pool = said.demand.pool or _Kind()
    asked = said.demand
    return (
        said.host,
        asked.architecture,
        asked.instance_name,
        asked.request_id,
        asked.client,
        pool.resource_type,
        pool.image_alias,
    )


def brought(made: Reservation, now: float, by: str) -> list[str | bytes | int]:
    """Write a reservation as a replica brings it when it joins, in the order in which the script reads it."""
    demand = made.demand or Demand(
        made.resources,
        pool=made.pool,
        instance_name=made.instance_name,
        request_id=made.request_id,
        client=made.client,
    )
    return [
        made.id,
        round((made.expires_at - now) * 1000),
        round((now - made.created_at) * 1000),
        request(made.key),
        made.instance or "",
        made.host,
        made.resources.cpu,
        made.resources.memory,
        "true" if made.pool is not None else "false",
        rest(demand, [made.host, *made.alternates], by),
    ]


def _kind(pool: Kind) -> _Kind:
    return _Kind(pool.resource_type, pool.image_alias)


def _demand(demand: Demand) -> _Demand:
    return _Demand(
        instance_type=demand.instance_type,
        architecture=demand.architecture,
        pool=None if demand.pool is None else _kind(demand.pool),
        instance_name=demand.instance_name,
        request_id=request(demand.key) or None,
        client=demand.client,
    )
