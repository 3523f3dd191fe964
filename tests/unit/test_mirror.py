"""How much of what is in Redis a process believes and keeps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import msgspec
import pytest
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from lxdsched.ledger import mirror as bounds
from lxdsched.ledger.mirror import LONGEST, MOST_HOSTS, SLACK, Mirror
from lxdsched.ledger.picture import Picture
from lxdsched.ledger.records import MOST_ON_HOST, MOST_TOLD, Entry, HostState, RecordError, Reply, read_reply
from tests.conftest import Logged

LIFE = 120.0
NOW = 1_900_000_000_000
versions = count(1)


@pytest.fixture
def picture() -> Iterator[Picture]:
    made = Picture(Clock())
    yield made
    made.stop()


@pytest.fixture
def mirror(picture: Picture) -> Mirror:
    return Mirror(Clock(), picture, LIFE)


def record(host: str = "a", life: float = LIFE, candidates: list[str] | None = None, **demand: str) -> bytes:
    said = {
        "expires": NOW + round(life * 1000),
        "cpu": 1000,
        "memory": 1 << 30,
        "promised": False,
        "created": NOW,
        "host": host,
        "candidates": candidates or [host],
        "by": "x",
        "demand": demand,
    }
    return msgspec.json.encode(said)


def state(host: str, **entries: bytes) -> HostState:
    return HostState(host, next(versions), [Entry(each, content, None) for each, content in entries.items()])


def answer(*hosts: HostState, outcome: str = "synced", detail: str = "") -> Reply:
    return Reply("e", next(versions), NOW, outcome, detail, hosts)


def numbered(number: int, content: bytes) -> dict[str, bytes]:
    return {f"r{each}": content for each in range(number)}


def test_what_a_replica_claims_that_keeps_reservations_for_longer_is_believed(mirror: Mirror, picture: Picture) -> None:
    mirror.apply(answer(state("a", day=record(life=SLACK), twice=record(life=2 * LIFE))))
    assert {each.id for each in picture.on("a")} == {"day", "twice"}


def test_an_end_that_is_further_off_than_any_is_not_believed(mirror: Mirror, picture: Picture, logged: Logged) -> None:
    mirror.apply(answer(state("a", never=record(life=LONGEST * LIFE + SLACK + 1), good=record())))
    assert [each.id for each in picture.on("a")] == ["good"]
    assert logged.messages(LogLevel.error) == [
        "the shared ledger holds what is not ours: reservation 'never' ends in 86881 s, later than any"
    ]


def test_there_is_a_most_of_reservations_which_is_said_once_and_never_keeps_our_own_callers_from_theirs(
    mirror: Mirror, picture: Picture, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MOST_ALIVE", 10)
    monkeypatch.setattr(bounds, "MOST_OURS", 2)
    for host in "abc":
        mirror.apply(answer(state(host, **{host + each: text for each, text in numbered(8, record(host)).items()})))
    assert (picture.count(), len(picture.on("a")), len(picture.on("b"))) == (10, 8, 2)
    (said,) = logged.messages(LogLevel.error)
    assert said.startswith("the shared ledger holds more than 10 reservations")
    mirror.apply(answer(state("d", ours=record("d"), other=record("d")), outcome="made", detail="ours"))
    assert [each.id for each in picture.on("d")] == ["ours"]
    for each in ("d1", "d2"):
        mirror.apply(answer(state(each, **{each: record(each)}), outcome="known", detail=each))
    assert picture.count() == 12, "even of those there is a most"
    mirror.apply(answer(*[state(each) for each in ("a", "b", "d1", "d2")]))
    mirror.apply(answer(state("c", **numbered(8, record("c")))))
    assert len(picture.on("c")) == 8, "there is room again"
    mirror.apply(answer(state("e", **{f"e{each}": record("e") for each in range(8)})))
    assert len(logged.messages(LogLevel.error)) == 2


def test_a_hundred_thousand_living_reservations_are_known(mirror: Mirror, picture: Picture, logged: Logged) -> None:
    names = [f"host-{number}.example" for number in range(50)]
    for number in range(20):
        host = names[number]
        text = record(host, candidates=[host, *names], instance_name="runner", request_id='["ci","job"]')
        mirror.apply(answer(state(host, **{f"{number}-{each}": text for each in range(5000)})))
    assert picture.count() == 100_000
    assert all(len(each.alternates) == 50 for each in picture.on(names[19]))
    assert logged.messages(LogLevel.error) == []


def test_where_alternates_would_take_too_much_memory_they_are_left_out_and_after_them_reservations(
    mirror: Mirror, picture: Picture, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MOST_HELD", 10_000)
    mirror.apply(answer(state("a", **numbered(60, record(candidates=["a", *map(str, range(500))])))))
    kept = picture.on("a")
    assert [len(each.alternates) for each in kept[:3]] == [500, 500, 0]
    assert 10 < len(kept) < 60
    assert picture.weight <= 10_000
    assert len(logged.messages(LogLevel.error)) == 1
    mirror.apply(answer(state("a")))
    assert picture.weight == 0


def test_a_long_text_is_weighed_by_what_it_takes(mirror: Mirror, picture: Picture) -> None:
    mirror.apply(answer(state("a", one=record(instance_name="x" * 4095 + "\N{CAT}"))))
    assert picture.weight > 4 * 4096
    mirror.apply(answer(state("a", one=record(instance_name="x" * 5000))))
    assert picture.count() == 1


def test_names_of_hosts_are_kept_once_and_no_more_than_there_may_be(
    mirror: Mirror, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MOST_NAMES", 3)
    mirror.apply(answer(state("a", one=record(candidates=["a", "bb", "cc"]), two=record(candidates=["a", "bb", "cc"]))))
    mirror.apply(answer(state("b", three=record("b", candidates=["b", "cc", "dd", "ee"]))))
    one, two = picture.on("a")
    assert one.alternates == two.alternates == ("bb", "cc")
    assert one.alternates[0] is two.alternates[0]
    assert picture.on("b")[0].alternates == ("cc", "dd")


def test_versions_of_hosts_without_reservations_are_forgotten_but_of_those_that_we_look_at(mirror: Mirror) -> None:
    mirror.look("ours", {}, 0.0)
    mirror.apply(answer(state("ours"), state("held", r=record("held"))))
    known = {host: mirror.version_of(host) for host in ("ours", "held")}
    for number in range(10):
        mirror.apply(answer(*[state(f"{number}-{each}") for each in range(MOST_HOSTS // 2)]))
        assert len(mirror._versions) <= 2 * MOST_HOSTS
    assert {host: mirror.version_of(host) for host in known} == known


def test_ends_of_what_was_dropped_are_forgotten(mirror: Mirror, picture: Picture) -> None:
    for number in range(100):
        mirror.apply(answer(state("a", first=record(life=1), **{f"{number}-{each}": record() for each in range(100)})))
    assert picture.count() == 101
    assert len(picture._ends) < 2000


def said(*hosts: list[Any]) -> list[object]:
    return [b"e", 1, NOW, b"synced", b"", list(hosts)]


def test_of_a_host_with_more_reservations_than_any_has_the_youngest_count(
    mirror: Mirror, picture: Picture, logged: Logged
) -> None:
    parts = [part for each in range(MOST_ON_HOST + 5) for part in (b"r%d" % each, record(), b"")]
    mirror.apply(read_reply(said([b"a", 1, parts])))
    assert [each.id for each in picture.on("a")] == [f"r{each}" for each in range(5, MOST_ON_HOST + 5)]
    assert logged.messages(LogLevel.error) == [
        "the shared ledger holds what is not ours: 5 reservations too many on 'a'"
    ]


def test_an_answer_that_tells_of_more_than_the_script_does_is_none() -> None:
    assert len(read_reply(said(*[[b"%d" % each, 1, []] for each in range(MOST_TOLD)])).hosts) == MOST_TOLD
    with pytest.raises(RecordError, match="too much at once"):
        read_reply(said(*[[b"%d" % each, 1, []] for each in range(MOST_TOLD + 1)]))
    with pytest.raises(RecordError, match="too much at once"):
        read_reply(said(*[[host, 1, [b"r", b"{}", b""] * MOST_ON_HOST] for host in (b"a", b"b")]))


def test_names_and_labels_that_nothing_has_are_passed_over(picture: Picture, mirror: Mirror) -> None:
    long = b"x" * 5000
    mirror.apply(read_reply(said([long, 1, []], [b"a", 1, [b"r", record(), long, long, record(), b""]])))
    assert [(each.id, each.instance) for each in picture.on("a")] == [("r", None)]
    assert mirror.version_of(long.decode()) == 0


def test_an_id_that_no_reservation_has_is_not_ours(picture: Picture, mirror: Mirror) -> None:
    mirror.apply(answer(state("a", **{"x" * 1000: record(), "good": record()})))
    assert [each.id for each in picture.on("a")] == ["good"]


def test_a_record_that_is_none_is_not_read_again_before_it_changes(
    picture: Picture, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "SLACK", 0.0)
    never = Mirror(Clock(), picture, LIFE)
    text = record(life=LONGEST * LIFE + 1)
    never.apply(answer(state("a", r=text)))
    later = Reply("e", next(versions), NOW + 5000, "synced", "", [state("a", r=text)])
    never.apply(later)
    assert picture.count() == 0
    never.apply(answer(state("a", r=record())))
    assert picture.count() == 1
