"""An exact account of whose doing it is when a host carries more than it has, and of what should be claimed when.

What is promised: a host's instances that were made from answers, and the answers whose instances are still to be made,
never take more than the host has, but for what somebody did by hand, or that no listing has shown yet. And an answer's
claim is not counted beside its own instance once a listing has shown that.

Callers that tell no name cannot be told apart by looks, so which of their claims an instance takes over is not
promised, only how many: each instance takes over one, of those that look alike the one that would end first. It follows
that an answer whose instance never comes keeps its capacity until its time is up, and perhaps longer: the last of those
that look alike is what is left.

The promise cannot hold, and the model keeps out:
- an instance that is made after its answer's time is up, or that no listing shows before that. It counts when it is
  shown, and until then nobody knows of it;
- an instance that somebody makes by hand, or thaws when its own claim is long over, and that looks like one that a
  nameless answer still waits for. It takes the claim over;
- a nameless claim that is given back though its instance was made: another's may stand in its place;
- an instance that comes to its name only after it was shown;
- an instance that takes more than was asked for, or is changed by hand before it was shown;
- two instances of one name, one after the other, between two listings.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lxdsched.model import Demand, Reservation, Resources
from tests.promise.truth import Listing, TrueHost, TrueInstance, total


@dataclass(eq=False)
class Answer:
    """An answer, and what became of it."""

    demand: Demand
    reservation: Reservation
    made: TrueInstance | None = None
    given_back: bool = False

    @property
    def ends(self) -> float:
        return self.reservation.expires_at

    def lives(self, now: float) -> bool:
        return self.ends > now and not self.given_back

    def awaited(self, now: float) -> bool:
        """Whether its instance may still be made."""
        return self.made is None and self.lives(now)


@dataclass(eq=False)
class HostAccount:
    """The answers for one host, what should be claimed there, and which load is excused.

    `claims` are the claims that should be counted now, the oldest first; `heirs` the claims that instances have taken
    over; `first_shown` the instances that were shown counting once.
    """

    host: TrueHost
    answers: list[Answer] = field(default_factory=list)
    claims: list[Answer] = field(default_factory=list)
    heirs: dict[TrueInstance, Answer] = field(default_factory=dict)
    first_shown: set[TrueInstance] = field(default_factory=set)
    excused: Resources = field(default_factory=Resources)

    def __post_init__(self) -> None:
        self.excuse()

    def answer_of(self, instance: TrueInstance) -> Answer | None:
        return next((each for each in self.answers if each.made is instance), None)

    # Whose doing

    def load(self, now: float) -> Resources:
        """Add up what counts, and what may still be made from answers."""
        return self.host.load() + total(each.reservation.resources for each in self.answers if each.awaited(now))

    def unseen(self, now: float) -> Resources:
        """Add up what counts without anybody being able to know it: done by hand since the last listing shown."""
        shown = {} if self.host.shown is None else self.host.shown.counted
        found = []
        for each in self.host.counted():
            known = shown.get(each, Resources())
            answer = self.answer_of(each)
            if answer is not None and answer.lives(now) and each not in self.first_shown:
                known = answer.reservation.resources
            found.append(Resources(max(each.size.cpu - known.cpu, 0), max(each.size.memory - known.memory, 0)))
        return total(found)

    def answered(self, answer: Answer, now: float) -> None:
        """Book an answer: it must fit beside all that it could be known to stand beside."""
        self.answers.append(answer)
        self.claims.append(answer)
        if answer.reservation.pool is not None:
            promised = [each for each in self.expected(now) if each.pool == answer.reservation.pool]
            assert self.host.ready(answer.reservation.pool) >= len(promised), "one of the pool was promised twice"
        load, most = self.load(now), self.host.size + self.unseen(now)
        assert most.covers(load), f"{self.host.name} was given away twice: {load} of {most}"
        self.excuse(now)

    def excuse(self, now: float = 0.0) -> None:
        """Take the load as it is, where it is more than the host has."""
        load = self.load(now)
        self.excused = Resources(max(self.host.size.cpu, load.cpu), max(self.host.size.memory, load.memory))

    def check(self, now: float) -> None:
        """Fail when the load has grown, and nobody has done it by hand."""
        assert self.excused.covers(self.load(now)), f"{self.host.name}: {self.load(now)}, excused {self.excused}"
        self.excuse(now)

    # What should be claimed

    def expected(self, now: float) -> list[Reservation]:
        """List what should be pending: the reservations whose claims should be counted."""
        return [each.reservation for each in self.claims if each.lives(now)]

    def shown(self, listing: Listing, now: float) -> None:
        """Take note of a listing: each instance that it shows for the first time takes over a claim of its looks."""
        self.claims = [each for each in self.claims if each.lives(now)]
        for instance in listing.counted:
            answer = self.answer_of(instance)
            if answer is None or instance in self.first_shown:
                continue
            self.first_shown.add(instance)
            if (heir := self._taken_over(answer)) is not None:
                self.claims.remove(heir)
                self.heirs[instance] = heir
            else:
                assert not answer.lives(now), "its claim was taken over by another, or ended too early"

    def _taken_over(self, answer: Answer) -> Answer | None:
        return next((each for each in self.claims if looks(each) == looks(answer)), None)

    def awaits_one_like(self, instance: TrueInstance, now: float) -> bool:
        """Tell whether a nameless claim may be taken over by an instance for its looks alone."""
        return any(
            each.lives(now)
            and each.reservation.instance_name is None
            and (each.reservation.resources == instance.size or each.reservation.pool is not None)
            for each in self.claims
        )

    def must_be_shown_by(self, instance: TrueInstance, now: float) -> float | None:
        """Say by when an instance must have been shown for the promise to hold; None when at any time."""
        if instance.frozen or self.host.settled(instance):
            return None
        answer = self.answer_of(instance) if instance not in self.first_shown else self.heirs.get(instance)
        return answer.ends if answer is not None and answer.lives(now) else None


def looks(answer: Answer) -> object:
    """Say what an answer's instance is known by."""
    made = answer.reservation
    return made.instance_name or made.pool or made.resources
