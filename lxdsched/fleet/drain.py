"""Whether a host is to be left alone, by its own word: nothing of it is kept here, so there is nothing to forget.

On a cluster, `user.*` keys belong to all members together: `user.lxdsched.drain` can name those that are meant.
"""

from __future__ import annotations

from collections.abc import Mapping

from lxdsched.fleet.payloads import MOST_TEXT, Member

DRAIN = "user.lxdsched.drain"
"""`true` drains the server, on a cluster every member; names of members, with commas between, drain these."""
_YES = frozenset({"true", "1", "yes", "on"})
_NO = frozenset({"", "false", "0", "no", "off"})


def drain_by_config(config: Mapping[str, object], name: str) -> str | None:
    """Say why the server `name` is to be left alone by the server's configuration; None when it is not."""
    wish = config.get(DRAIN, "")
    if not isinstance(wish, str) or (word := wish.strip().lower()) in _NO:
        return None
    if word in _YES or name in {each.strip() for each in wish.split(",")}:
        return f"it is drained: its configuration says {DRAIN}={wish[:MOST_TEXT]}"
    return None


def drain_by_cluster(member: Member) -> str | None:
    """Say why a member is to be left alone by its cluster; None when it is not."""
    if member.status != "Online":
        return f"its cluster says that it is {member.status[:MOST_TEXT]}: {member.message[:MOST_TEXT]}"
    if member.config.get("scheduler.instance") == "manual":
        return "its cluster places no instances there by itself: scheduler.instance=manual"
    return None
