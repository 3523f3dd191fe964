"""Whose request is answered next when there is not time for all."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest
from twisted.internet.task import Clock

from lxdsched.listener.peers import ACQUAINTED, EARNS, FIRST, MANY, MOST, WELCOME
from lxdsched.listener.turns import KNOWN, SLICE, Turns

COST = SLICE * 0.21
"""What an answer costs here: five of them fill a slice."""


class Scene:
    """Turns by a clock of work, and who was answered in which order."""

    def __init__(self) -> None:
        self.reactor = Clock()
        self.worked = 0.0
        self.turns = Turns(self.reactor, lambda: self.worked)
        self.answered: list[str] = []

    def ask(self, address: str, times: int = 1, cost: float = COST, *, caller: str = "") -> None:
        """Have a peer ask."""
        for _ in range(times):
            self.turns.ask(address, partial(self.answer, caller or address, cost), caller=caller)

    def answer(self, peer: str, cost: float) -> None:
        """Work for a peer."""
        self.worked += cost
        self.reactor.rightNow += cost
        self.answered.append(peer)

    def rest(self, seconds: float) -> None:
        """Let time go by in which nobody asks."""
        self.reactor.rightNow += seconds

    def flood(self, peers: int) -> None:
        """Have peers ask for more than there is time for, until they have nothing left but their share."""
        for number in range(peers):
            self.ask(f"flooding {number}", 500)
        while len(self.answered) < 150 * peers:
            self.turn()
        self.answered.clear()

    def turn(self) -> None:
        """Let the reactor turn once. The clock's own `advance` would go on with what is called meanwhile."""
        (call,) = self.reactor.calls
        self.reactor.calls.clear()
        call.func()

    def finish(self) -> None:
        """Let the reactor turn until nothing is left to do."""
        while self.reactor.calls:
            self.turn()


def test_who_asks_while_there_is_time_is_answered_at_once() -> None:
    scene = Scene()
    scene.ask("a", 3)
    scene.ask("b")
    assert scene.answered == ["a", "a", "a", "b"]


def test_a_turn_ends_when_its_slice_is_used_up_and_the_next_goes_on() -> None:
    scene = Scene()
    scene.ask("a", 12)
    assert len(scene.answered) == 5
    scene.turn()
    assert len(scene.answered) == 10
    scene.turn()
    assert len(scene.answered) == 12


def test_who_rests_between_its_requests_goes_before_any_number_that_ask_all_the_time() -> None:
    scene = Scene()
    scene.ask("honest")
    scene.flood(200)
    for _ in range(50):
        scene.rest(2 * COST / EARNS)
        scene.turn()
        scene.answered.clear()
        scene.ask("honest", 2)
        scene.turn()
        assert scene.answered[:2] == ["honest"] * 2


@pytest.mark.parametrize(("rested", "earned"), [(0.25, 0.25), (0.5, 0.5), (1.0, 1.0), (1e6, 1.0)])
def test_rest_earns_a_part_of_its_time_and_no_more_than_so_much(rested: float, earned: float) -> None:
    scene = Scene()
    scene.flood(5)
    scene.ask("honest", 300)
    while scene.answered.count("honest") < 300:
        scene.turn()
    scene.rest(MOST / EARNS)  # what it has used beyond what it had earned
    scene.rest(rested * MOST / EARNS)
    scene.answered.clear()
    scene.ask("honest", 200)
    while len(scene.answered) < 150:
        scene.turn()
    first = scene.answered.index(next(peer for peer in scene.answered if peer != "honest"))
    assert first == pytest.approx(earned * MOST / COST, abs=1.5)


def test_who_is_new_has_time_for_a_first_request_and_then_its_share() -> None:
    scene = Scene()
    scene.flood(5)
    scene.ask("new", 200)
    while len(scene.answered) < 100:
        scene.turn()
    first = scene.answered.index(next(peer for peer in scene.answered if peer != "new"))
    assert first == pytest.approx(FIRST / COST, abs=2.5)


def test_who_has_rested_most_goes_first_of_those_who_rest() -> None:
    scene = Scene()
    scene.ask("rested")
    scene.rest(MOST / EARNS)
    scene.flood(5)
    for number in range(50):
        scene.ask(f"new {number}")
    scene.answered.clear()
    scene.ask("rested")
    scene.turn()
    assert scene.answered[0] == "rested"


def test_what_a_request_leads_to_is_done_at_once_where_nobody_else_is_next() -> None:
    scene = Scene()
    scene.flood(200)
    scene.turns.ask("honest", lambda: scene.ask("honest"))
    assert scene.answered == ["honest"]


def test_everybody_who_asks_all_the_time_gets_the_same_share_however_much_it_asks_for() -> None:
    scene = Scene()
    scene.ask("greedy", 400)
    scene.ask("modest", 100)
    scene.ask("costly", 100, 4 * COST)
    while len(scene.answered) < 200:
        scene.turn()
    shares = Counter(scene.answered)
    assert shares["greedy"] == pytest.approx(shares["modest"], abs=10)
    assert shares["costly"] * 4 == pytest.approx(shares["modest"], abs=20)


def test_what_a_peer_asks_for_is_answered_in_its_order() -> None:
    scene, order = Scene(), list[int]()
    scene.ask("other", 10)
    for number in range(20):
        scene.turns.ask("a", lambda number=number: order.append(number))  # type: ignore[misc]
    scene.finish()
    assert order == list(range(20))


def test_a_request_that_an_answer_brings_waits_for_its_turn() -> None:
    scene, depth, most = Scene(), 0, 0

    def answer() -> None:
        nonlocal depth, most
        depth += 1
        most = max(most, depth)
        scene.worked += COST
        scene.answered.append("a")
        if len(scene.answered) < 3000:
            scene.turns.ask("a", answer)
        depth -= 1

    scene.turns.ask("a", answer)
    scene.finish()
    assert (len(scene.answered), most) == (3000, 1)


def test_a_request_of_another_one_that_an_answer_brings_waits_too() -> None:
    scene, depth, most = Scene(), 0, 0

    def answer(number: int) -> None:
        nonlocal depth, most
        depth += 1
        most = max(most, depth)
        scene.answered.append("a")
        if number:
            scene.turns.ask(f"peer {number}", lambda: answer(number - 1))
        depth -= 1

    scene.turns.ask("first", lambda: answer(300))
    scene.finish()
    assert (len(scene.answered), most) == (301, 1)


def test_who_asks_and_is_not_next_has_nobody_answered_out_of_turn() -> None:
    scene = Scene()
    scene.flood(20)
    scene.turn()
    scene.answered.clear()
    scene.ask("flooding 3")
    assert scene.answered == []


def test_an_answer_that_breaks_keeps_nobody_from_being_answered() -> None:
    scene = Scene()
    scene.ask("a", 6)

    def broken() -> None:
        raise ZeroDivisionError

    scene.turns.ask("b", broken)
    scene.ask("b")
    scene.ask("c")
    with pytest.raises(ZeroDivisionError):
        scene.finish()
    scene.finish()
    assert Counter(scene.answered) == {"a": 6, "b": 1, "c": 1}


def share(scene: Scene, of: str, turns: int = 2000) -> float:
    """Let the reactor turn; return which part of the answers one has got."""
    scene.answered.clear()
    for _ in range(turns):
        scene.turn()
    return sum(peer.startswith(of) for peer in scene.answered) / len(scene.answered)


def test_who_is_known_does_not_wait_for_strangers() -> None:
    scene = Scene()
    scene.flood(200)
    for _ in range(20):
        scene.ask("192.0.2.1", 3, caller="us")
        while scene.answered.count("us") < 3:
            scene.turn()
        assert len(scene.answered) <= 5, "two strangers at most have come between"
        scene.answered.clear()
        scene.rest(MOST / EARNS)


def test_who_is_known_and_asks_all_the_time_gets_the_greater_part_and_strangers_the_rest() -> None:
    scene = Scene()
    scene.flood(20)
    scene.ask("192.0.2.1", 10_000, caller="us")
    share(scene, "us")
    assert share(scene, "us", 300) == pytest.approx(KNOWN / (KNOWN + 1), abs=0.05)


def test_a_stranger_that_rests_does_not_wait_for_one_who_is_known_and_asks_all_the_time() -> None:
    scene = Scene()
    scene.ask("192.0.2.1", 10_000, caller="us")
    for _ in range(300):
        scene.turn()
    for _ in range(20):
        scene.rest(MOST / EARNS)
        scene.turn()
        scene.answered.clear()
        scene.ask("balancer")
        scene.turn()
        assert "balancer" in scene.answered


def test_where_one_who_is_known_has_asked_from_is_known_for_a_while() -> None:
    scene = Scene()
    scene.ask("192.0.2.1", caller="us")
    scene.flood(200)
    scene.ask("192.0.2.1", 20_000)
    share(scene, "192.0.2.1")
    assert share(scene, "192.0.2.1", 100) == pytest.approx(KNOWN / (KNOWN + 1), abs=0.1)
    scene.rest(ACQUAINTED)
    scene.ask("192.0.2.1")
    assert ("192.0.2.1", False) in scene.turns._peers._peers


def test_a_stranger_is_nobody_who_is_known_though_its_address_is_their_name() -> None:
    scene = Scene()
    scene.flood(20)
    scene.ask("same", 10_000, caller="us")
    scene.ask("us", 10_000)
    share(scene, "us", 3000)
    assert "us" in scene.answered
    assert len({("us", known) for known in (True, False)} & scene.turns._peers._peers.keys()) == 2


def test_no_more_addresses_are_known_than_may_be() -> None:
    scene = Scene()
    for number in range(2 * MANY):
        scene.ask(f"2001:db8:{number:x}::", caller="us")
        scene.finish()
    first, last = "2001:db8:0::", f"2001:db8:{2 * MANY - 1:x}::"
    for address, known in ((first, False), (last, True)):
        assert scene.turns._peers.find(address, "", scene.reactor.seconds()).known is known


def test_an_address_that_is_known_is_no_caller_of_that_name() -> None:
    scene = Scene()
    scene.ask("192.0.2.1", caller="192.0.2.1")
    scene.ask("192.0.2.1")
    assert len(scene.turns._peers) == 2


def test_who_is_new_starts_with_a_part_of_what_there_is_for_all_who_are() -> None:
    scene = Scene()
    scene.flood(20)
    scene.rest(1)
    for number in range(10_000):
        scene.ask(f"2001:db8:{number:x}::")
    scene.answered.clear()
    first = 0
    while not any(peer.startswith("flooding") for peer in scene.answered):
        scene.turn()
        first = len(scene.answered)
    assert first <= WELCOME / FIRST + 20, "strangers who come all the time anew kept the others waiting"


def test_peers_that_have_had_their_turn_are_forgotten_though_there_is_always_one_that_waits() -> None:
    scene = Scene()
    for number in range(10_000):
        scene.ask("greedy", 6)
        scene.ask(f"2001:db8:{number:x}::", cost=COST / 100)
        scene.turn()
    assert ("greedy", False) in scene.turns._peers._peers
    assert len(scene.turns._peers) < 8000


def test_peers_are_forgotten_when_nobody_asks_any_more() -> None:
    scene = Scene()
    for number in range(10_000):
        scene.ask(f"2001:db8:{number:x}::", cost=COST / 100)
    scene.finish()
    scene.rest(100)
    scene.ask("one")
    scene.finish()
    assert len(scene.turns._peers) < 10


def test_who_comes_back_after_a_rest_is_remembered_longer_than_who_is_new() -> None:
    scene = Scene()
    for _ in range(2):
        scene.ask("honest")
        scene.finish()
        scene.rest(5)
    for number in range(3 * MANY):
        scene.ask(f"2001:db8:{number:x}::", cost=COST / 100)
        scene.finish()
    scene.rest(10)
    scene.ask("one")
    scene.finish()
    assert set(scene.turns._peers._peers) == {("honest", False), ("one", False)}


def test_not_more_are_remembered_than_may_be_and_those_who_came_last() -> None:
    scene = Scene()
    names = [f"2001:db8:{number:x}::" for number in range(3 * MANY)]
    for order in (names, names[::-1]):
        for name in order:
            scene.ask(name, cost=COST / 100)
            scene.finish()
        scene.rest(5)
    scene.rest(10)
    scene.ask("one")
    scene.finish()
    assert {name for name, _ in scene.turns._peers._peers} == {*names[:MANY], "one"}
