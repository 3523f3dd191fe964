"""What the log says when a host has come to stand otherwise."""

from __future__ import annotations

from twisted.logger import Logger

from lxdsched.model import State, View

MOST_DOUBTS = 10
"""Doubtful instances of a host that the log names one by one."""

_log = Logger()


def report(before: View, now: View, *, failing: bool, anew: bool) -> None:
    """Log what is new: the host's state, or the reason of a failure that comes `anew`, and its doubtful instances.

    Of a host that is not trusted each new reason is told: a person who has mended one hears of the next.
    """
    another = now.state is State.UNTRUSTED and now.reason != before.reason
    if now.state is not before.state or anew or another:
        told = {"host": now.host, "state": now.state.value, "reason": now.reason}
        if failing:
            _log.warn("host {host} is {state}: {reason}", **told)
        elif now.reason is None:
            _log.info("host {host} answers: {state}", **told)
        elif now.state is not State.DOUBTFUL:  # of which the instances tell
            _log.info("host {host} is {state}: {reason}", **told)
    doubts = now.allocation.doubts
    if doubts == before.allocation.doubts:
        return
    fresh = [(name, doubt) for name, doubt in doubts.items() if before.allocation.doubts.get(name) != doubt]
    for instance, doubt in fresh[:MOST_DOUBTS]:
        told = {"host": now.host, "instance": instance, "doubt": doubt}
        _log.warn("instance {instance} on {host} is doubtful: {doubt}", **told)
    if len(fresh) > MOST_DOUBTS:
        _log.warn("{count} instances on {host} are doubtful", host=now.host, count=len(doubts))
