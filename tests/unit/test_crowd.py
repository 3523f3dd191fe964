"""Who gets a connection, who has to make room, and who has to wait."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdsched.listener.crowd import FEW, Crowd, Full, Guest, peer_address
from lxdsched.listener.settings import Bounds


class Scene:
    """A crowd, its time, and the connections that were dropped."""

    def __init__(self, **bounds: int) -> None:
        self.now = 0.0
        self.crowd = Crowd(Bounds(**{"rate_per_peer": 0, **bounds}), lambda: self.now)
        self.dropped: list[str] = []

    def come(self, address: str, name: str = "") -> Guest | None:
        """Have a connection come; None when it is not let in."""
        if not self.crowd.admit(address):
            return None
        return self.crowd.join(address, lambda: self.dropped.append(name))


def test_the_longest_waiting_connection_makes_room_when_all_places_are_taken() -> None:
    scene = Scene(connections=3)
    for name in "abc":
        scene.come(f"192.0.2.{ord(name)}", name)
    assert scene.come("198.51.100.1", "d") is not None
    assert scene.dropped == ["a"]
    assert scene.crowd.connections == 3
    assert scene.crowd.turned_away == {Full.CONNECTIONS: 1}


def test_a_connection_that_never_asked_goes_before_one_that_has() -> None:
    scene = Scene(connections=2)
    asked = scene.come("192.0.2.1", "asked")
    assert asked is not None
    scene.crowd.ask(asked)
    scene.crowd.rest(asked)
    scene.come("192.0.2.2", "silent")
    scene.come("192.0.2.3", "new")
    assert scene.dropped == ["silent"]
    scene.crowd.leave(asked)


def test_a_connection_whose_request_is_being_answered_keeps_its_place() -> None:
    scene = Scene(connections=1)
    busy = scene.come("192.0.2.1", "busy")
    assert busy is not None
    scene.crowd.ask(busy)
    scene.crowd.keep(busy)
    assert scene.come("192.0.2.2") is None
    assert scene.dropped == []
    scene.crowd.rest(busy)
    assert scene.come("192.0.2.2") is not None
    assert scene.dropped == ["busy"]


def test_a_request_that_waits_for_its_turn_keeps_no_place() -> None:
    scene = Scene(connections=1)
    waiting = scene.come("192.0.2.1", "waiting")
    assert waiting is not None
    scene.crowd.ask(waiting)
    assert scene.come("192.0.2.2") is not None
    assert scene.dropped == ["waiting"]


def test_who_has_most_places_loses_one_to_who_has_few() -> None:
    scene = Scene(connections=20)
    for number in range(2):
        scene.come("192.0.2.1", f"modest {number}")
    for number in range(18):
        guest = scene.come("198.51.100.1", f"greedy {number}")
        assert guest is not None
        scene.crowd.ask(guest)
    for _ in range(3):
        assert scene.come("192.0.2.2", "new") is not None
    assert scene.dropped == ["greedy 0", "greedy 1", "greedy 2"]


def test_where_the_greediest_can_spare_none_the_next_one_does() -> None:
    scene = Scene(connections=20)
    for number in range(8):
        scene.come("192.0.2.1", f"idle {number}")
    for _ in range(12):
        guest = scene.come("198.51.100.1", "busy")
        assert guest is not None
        scene.crowd.ask(guest)
        scene.crowd.keep(guest)
    assert scene.come("192.0.2.2") is not None
    assert scene.dropped == ["idle 0"]


def settled(scene: Scene, address: str, name: str, caller: str = "") -> Guest:
    """Have a connection come that has asked once."""
    guest = scene.come(address, name)
    assert guest is not None
    scene.crowd.ask(guest)
    scene.crowd.keep(guest)
    guest.caller = caller
    scene.crowd.rest(guest)
    return guest


def test_callers_who_are_known_lose_their_connections_last() -> None:
    scene = Scene(connections=30)
    ours = [settled(scene, "192.0.2.1", f"ours {number}", "ci") for number in range(10)]
    for number in range(20):
        settled(scene, f"198.51.100.{number}", f"stranger {number}")
    for number in range(20):
        assert scene.come("203.0.113.1", f"new {number}") is not None
    assert not [name for name in scene.dropped if name.startswith("ours")]
    # Who turns out to be a stranger after all, on the same connection, is one.
    for guest in ours:
        scene.crowd.keep(guest)
        guest.caller = ""
        scene.crowd.rest(guest)
    scene.dropped.clear()
    for number in range(15):
        scene.come(f"203.0.113.{number + 2}", "late")
    assert [name for name in scene.dropped if name.startswith("ours")]


def test_where_all_are_known_who_has_most_loses_one() -> None:
    scene = Scene(connections=20, connections_per_peer=15)
    for number in range(15):
        settled(scene, "192.0.2.1", f"greedy {number}", "ci")
    for number in range(5):
        settled(scene, f"198.51.100.{number}", f"modest {number}", "balancer")
    assert scene.come("203.0.113.1") is not None
    assert scene.dropped == ["greedy 0"]


def test_who_is_known_makes_room_for_its_own() -> None:
    scene = Scene(connections_per_peer=2)
    for number in range(2):
        settled(scene, "192.0.2.1", f"known {number}", "ci")
    assert scene.come("192.0.2.1") is not None
    assert scene.dropped == ["known 0"]


def test_the_greediest_is_who_has_most_now() -> None:
    scene = Scene(connections=21)
    gone = [scene.come("198.51.100.1", f"gone {number}") for number in range(8)]
    for number in range(6):
        scene.come("192.0.2.1", f"less {number}")
    for number in range(7):
        scene.come("192.0.2.2", f"most {number}")
    for guest in gone[:3]:
        assert guest is not None
        scene.crowd.leave(guest)
    for number in range(3):
        scene.come(f"203.0.113.{number}", "modest")
    assert scene.dropped == []
    assert scene.come("203.0.113.9") is not None
    assert scene.dropped == ["most 0"]


@pytest.mark.parametrize(("more", "dropped"), [(FEW, "old"), (FEW + 1, "many 0")])
def test_who_has_no_more_than_a_few_is_not_asked_first(more: int, dropped: str) -> None:
    assert FEW == 4
    scene = Scene(connections=1 + more)
    scene.come("192.0.2.1", "old")
    for number in range(more):
        scene.come("198.51.100.1", f"many {number}")
    assert scene.come("192.0.2.2") is not None
    assert scene.dropped == [dropped]


def test_who_has_too_many_connections_makes_room_for_its_own_and_for_nobody_else() -> None:
    scene = Scene(connections_per_peer=2)
    scene.come("192.0.2.9", "other")
    for name in "abc":
        scene.come("192.0.2.1", name)
    assert scene.dropped == ["a"]
    assert scene.crowd.turned_away == {Full.CONNECTIONS_PER_PEER: 1}
    assert scene.crowd.connections == 3


def test_a_connection_that_was_dropped_leaves_no_second_time() -> None:
    scene = Scene(connections=1)
    first = scene.come("192.0.2.1", "first")
    assert first is not None
    scene.come("192.0.2.2", "second")
    scene.crowd.leave(first)
    scene.crowd.rest(first)
    assert scene.crowd.connections == 1
    scene.come("192.0.2.1", "third")
    scene.come("192.0.2.3", "fourth")
    assert scene.dropped == ["first", "second", "third"]


def test_sockets_of_this_machine_are_counted_in_total_alone() -> None:
    scene = Scene(connections=3, connections_per_peer=1, rate_per_peer=1)
    assert [scene.come("") is not None for _ in range(4)] == [True] * 4
    assert scene.crowd.connections == 3


def test_a_second_of_requests_may_come_at_once_and_what_comes_after_has_to_wait() -> None:
    scene = Scene(rate_per_peer=10)
    guest = scene.come("192.0.2.1")
    assert guest is not None
    waits = []
    for _ in range(12):
        scene.crowd.ask(guest)
        waits.append(round(scene.crowd.patience(guest), 3))
    assert waits == [0.0] * 9 + [0.1, 0.2, 0.3]
    scene.now = 0.25
    assert [scene.crowd.patience(guest) for _ in range(3)] == [pytest.approx(0.05)] * 3
    scene.now = 100.0
    waits = []
    for _ in range(12):
        scene.crowd.ask(guest)
        waits.append(round(scene.crowd.patience(guest), 3))
    assert waits == [0.0] * 10 + [0.1, 0.2]


def test_one_that_asks_too_often_makes_nobody_else_wait() -> None:
    scene = Scene(rate_per_peer=10)
    greedy, modest = scene.come("192.0.2.1"), scene.come("192.0.2.2")
    assert greedy is not None
    assert modest is not None
    for _ in range(100):
        scene.crowd.ask(greedy)
    assert scene.crowd.patience(greedy) > 5
    assert scene.crowd.patience(modest) == 0.0


def test_who_is_two_seconds_behind_gets_no_connection_until_it_has_caught_up() -> None:
    scene = Scene(rate_per_peer=10)
    made = [scene.come("192.0.2.1") is not None for _ in range(40)]
    assert made == [True] * 31 + [False] * 9
    scene.now = 0.2
    assert scene.come("192.0.2.1") is not None
    assert scene.crowd.turned_away == {Full.RATE_PER_PEER: 9}


def test_peers_that_have_gone_are_forgotten() -> None:
    scene = Scene(rate_per_peer=10)
    for number in range(10_000):
        scene.now += 0.01
        guest = scene.come(f"2001:db8:{number:x}::")
        assert guest is not None
        scene.crowd.leave(guest)
    assert len(scene.crowd._peers) < 2500


def test_peers_that_still_matter_are_not_forgotten_with_the_others() -> None:
    scene = Scene(rate_per_peer=10, connections_per_peer=1)
    scene.come("192.0.2.1", "there")
    for number in range(1015):
        guest = scene.come(f"2001:db8:{number:x}::")
        assert guest is not None
        scene.crowd.leave(guest)
    scene.now = 1000.0
    for address, requests in (("192.0.2.2", 19), ("192.0.2.3", 4)):
        guest = scene.come(address)
        assert guest is not None
        for _ in range(requests):
            scene.crowd.ask(guest)
        scene.crowd.leave(guest)
    for number in range(20):
        scene.crowd.admit(f"2001:db9:{number:x}::")
    assert len(scene.crowd._peers) < 30
    assert scene.come("192.0.2.1") is not None
    assert scene.dropped == ["there"]
    waits = []
    for address in ("192.0.2.2", "192.0.2.3"):
        guest = scene.come(address)
        assert guest is not None
        for _ in range(9):
            scene.crowd.ask(guest)
        waits.append(round(scene.crowd.patience(guest), 3))
    assert waits == [2.0, 0.5]


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 4), st.integers(0, 3))
def test_the_counts_are_those_of_the_connections_that_are_there(seed: int, total: int, each: int, rate: int) -> None:
    random = Random(seed)
    scene = Scene(connections=total, connections_per_peer=each, rate_per_peer=rate)
    here: dict[str, tuple[str, Guest]] = {}
    for step in range(60):
        scene.now += random.choice([0.0, 0.1, 2.0])
        action = random.randrange(5)
        if action == 0:
            address, name = random.choice(["", "192.0.2.1", "192.0.2.2"]), str(step)
            if (guest := scene.come(address, name)) is not None:
                here[name] = address, guest
        elif here:
            name = random.choice(list(here))
            _, guest = here[name]
            if action == 1:
                scene.crowd.ask(guest)
            elif action == 2:
                scene.crowd.rest(guest)
            elif action == 3:
                scene.crowd.keep(guest)
            else:
                scene.crowd.leave(here.pop(name)[1])
        for name in scene.dropped:
            here.pop(name, None)
        assert scene.crowd.connections == len(here) <= total
        for address in ("192.0.2.1", "192.0.2.2"):
            assert sum(where == address for where, _ in here.values()) <= each


@pytest.mark.parametrize(
    ("host", "peer"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("::1", "::"),
    ],
)
def test_an_ipv6_network_of_64_bits_is_one_peer(host: str, peer: str) -> None:
    assert peer_address(host) == peer
