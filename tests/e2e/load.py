"""Clients of several daemons that ask for room and give it back, and an account of what they were told.

The account is strict in the clients' own way: a claim surely lives from the moment at which its answer has come until
its end is begun, or until its time may be up, counted from when it was asked for. What surely lives at one moment may
never be more than a host has.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

GIB = 1024**3
LONGEST = 30.0
"""Seconds after which a client gives up."""


@dataclass(eq=False)
class Answer:
    """One answer of the replica at `port`. Times are those of time.monotonic.

    `ended` is when its end was begun, None while it was not; `given_back` whether it was heard that it has ended.
    """

    port: int
    asked: float
    came: float
    status: int
    body: dict[str, Any]
    retry_after: str | None = None
    ended: float | None = None
    given_back: bool = False

    @property
    def placed(self) -> bool:
        return self.status == 200

    @property
    def degraded(self) -> bool:
        return bool(self.body.get("degraded", False))

    @property
    def took(self) -> float:
        return self.came - self.asked

    @property
    def code(self) -> str | None:
        """Why it was refused."""
        return None if self.placed else str(self.body.get("code"))

    @property
    def host(self) -> str:
        return str(self.body["host"])

    @property
    def id(self) -> str:
        return str(self.body["reservation"]["id"])

    def over(self, life: float) -> float:
        """Say until when it surely lives."""
        ends = self.asked + life
        return ends if self.ended is None else min(ends, self.ended)


def overbooked(answers: Iterable[Answer], room: int, asked: int = 2, life: float = 120.0) -> dict[str, int]:
    """Say by how many cores each host, which has `room`, was given away too often at its worst moment.

    Each claim is of `asked` cores and lives for `life` seconds. Hosts without fault are left out.
    """
    steps: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for each in answers:
        if each.placed and each.over(life) > each.came:
            steps[each.host] += [(each.came, asked), (each.over(life), -asked)]
    worst: dict[str, int] = {}
    for host, changes in steps.items():
        taken = most = 0
        for _, change in sorted(changes):  # at the same moment, what ends comes first
            taken += change
            most = max(most, taken)
        if most > room:
            worst[host] = most - room
    return worst


def heedless(answers: Sequence[Answer], since: float, room: int, asked: int = 2, life: float = 120.0) -> list[Answer]:
    """Return the answers, asked for from `since` on and not degraded, that gave away what others held already.

    Others are all, degraded ones too, that had come before.
    """
    found = []
    for each in answers:
        if not each.placed or each.degraded or each.asked < since:
            continue
        beside = [
            other
            for other in answers
            if other is not each
            and other.placed
            and other.host == each.host
            and other.came < each.asked
            and other.over(life) > each.came
        ]
        if (len(beside) + 1) * asked > room:
            found.append(each)
    return found


@dataclass
class Load:
    """Clients that ask the daemons at `ports` in turn until they are told to stop, each on its own connections.

    Each keeps as many claims as `keep` says and gives back the oldest at any daemon, at its own only where that one
    knows of none. `pause` is the seconds between two requests of one client.
    """

    ports: Sequence[int]
    clients: int = 6
    keep: int = 6
    pause: float = 0.01
    cores: int = 2
    answers: list[Answer] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    returns: list[tuple[float, int, float]] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(self.clients)]
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for each in self._threads:
            each.join(2 * LONGEST)

    @property
    def held(self) -> list[Answer]:
        """The claims that nobody has begun to give back."""
        return [each for each in self.answers if each.placed and each.ended is None]

    def claim(self) -> list[Answer]:
        """Claim something at each daemon, to keep it to the end; the clients make room for it now and then."""
        client, until = Client(), time.monotonic() + LONGEST
        claimed = []
        for port in self.ports:
            while not (answer := client.schedule(port, cores=self.cores)).placed:
                assert time.monotonic() < until, answer.body
                time.sleep(self.pause)
            self.answers.append(answer)
            claimed.append(answer)
        client.close()
        return claimed

    def _work(self, number: int) -> None:
        client, random = Client(), Random(number)
        mine: list[Answer] = []
        turn = number
        while not self._over.wait(self.pause * random.uniform(0.5, 1.5)):
            turn += 1
            port = self.ports[turn % len(self.ports)]
            try:
                answer = client.schedule(port, cores=self.cores)
            except (OSError, http.client.HTTPException) as error:
                self.unanswered.append(f"{port}: {error!r}")
                continue
            self.answers.append(answer)
            if answer.placed:
                mine.append(answer)
            if mine and (len(mine) > self.keep or not answer.placed):
                self._give_back(client, mine.pop(0), random.choice(self.ports))
        client.close()

    def _give_back(self, client: Client, claim: Answer, port: int) -> None:
        for where in dict.fromkeys((port, claim.port)):
            claim.ended = began = time.monotonic()
            try:
                status = client.release(where, claim.id)
            except (OSError, http.client.HTTPException) as error:
                self.unanswered.append(f"{where}: {error!r}")
                return
            self.returns.append((began, status, time.monotonic() - began))
            if status != 404:
                claim.given_back = status == 204
                return
            claim.ended = None  # unknown there, and so it still lives


class Client:
    """One client: a connection for each daemon that it has asked."""

    def __init__(self) -> None:
        self._connections: dict[int, http.client.HTTPConnection] = {}

    def ask(self, port: int, method: str, path: str, body: object = None) -> tuple[int, Any, str | None]:
        """Return status, JSON and Retry-After. OSError or HTTPException where no answer comes."""
        connection = self._connections.get(port)
        if connection is None:
            connection = self._connections[port] = http.client.HTTPConnection("127.0.0.1", port, timeout=LONGEST)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            said = response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            raise
        return response.status, json.loads(said) if said else {}, response.headers.get("Retry-After")

    def schedule(self, port: int, cores: int = 2, **more: object) -> Answer:
        """Ask for so many cores, and as many GiB."""
        asked = time.monotonic()
        status, body, retry = self.ask(port, "POST", "/schedule", {"cpu": cores, "memory": cores * GIB} | more)
        return Answer(port, asked, time.monotonic(), status, body, retry)

    def release(self, port: int, reservation: str) -> int:
        """Give one back; return the status."""
        return self.ask(port, "DELETE", f"/reservations/{reservation}")[0]

    def close(self) -> None:
        for each in self._connections.values():
            each.close()


def burst(ports: Sequence[int], requests: int, at_once: int = 64) -> tuple[list[Answer], list[str]]:
    """Ask for so many at once, spread over daemons; also say what was not answered.

    Whose daemon is gone goes on at the next.
    """
    answers: list[Answer] = []
    unanswered: list[str] = []
    left = list(range(requests))

    def work(number: int) -> None:
        client, ring = Client(), list(ports)
        while left:
            try:
                left.pop()
            except IndexError:
                break
            for _ in range(len(ring)):
                try:
                    answers.append(client.schedule(ring[number % len(ring)]))
                    break
                except (OSError, http.client.HTTPException) as error:
                    unanswered.append(f"{ring[number % len(ring)]}: {error!r}")
                    number += 1
        client.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(min(at_once, requests))]
    for each in threads:
        each.start()
    for each in threads:
        each.join(2 * LONGEST)
    return answers, unanswered
