"""What the daemon knows of hosts that are trusted on first use: what the store says, and what it does not say yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from lxdsched.trust.records import Hosts, Known, Shown, offered, remember


@dataclass(frozen=True, slots=True)
class News:
    """What is to be written: hosts met for the first time, certificates offered, and what was known all along.

    The last of these counts where the store has vanished, and is None where there never was one.
    """

    fresh: Hosts
    offers: Mapping[str, Shown]
    known: Hosts | None

    def into(self, hosts: Hosts | None) -> Hosts:
        """Bring the store up to date."""
        return remember((self.known or {}) if hosts is None else hosts, self.fresh, self.offers)


@dataclass(slots=True)
class Memory:
    """Knows hosts by URL. `changed` is told of each whose trusted certificate is another one, or none, in the store."""

    changed: Callable[[str], None]
    hosts: dict[str, Known] = field(default_factory=dict)
    fresh: dict[str, Known] = field(default_factory=dict)
    offers: dict[str, Shown] = field(default_factory=dict)
    stored: bool = False

    def meet(self, url: str, known: Known) -> None:
        """Remember a host that was met for the first time."""
        self.hosts[url] = self.fresh[url] = known

    def offer(self, url: str, shown: Shown) -> bool:
        """Remember what a known host shows instead; False when it has been waiting already."""
        known = self.hosts[url]
        if offered(known) == shown.fingerprint:
            return False
        self.hosts[url] = replace(known, offered=shown)
        self.offers[url] = shown
        return True

    def news(self) -> News:
        """Return what is to be written now."""
        return News(dict(self.fresh), dict(self.offers), dict(self.hosts) if self.stored else None)

    def written(self, news: News) -> None:
        """Take note that this is in the store, or is not to be there."""
        for waiting, done in ((self.fresh, news.fresh), (self.offers, news.offers)):
            for url, value in done.items():
                if waiting.get(url) is value:
                    del waiting[url]

    def vanished(self) -> bool:
        """Take note that there is no store (any more); True when that is bad news."""
        if lost := self.stored and bool(self.hosts):
            self.fresh = dict(self.hosts)
        self.stored = False
        return lost

    def adopt(self, hosts: Hosts) -> None:
        """Know what the store says. What it does not say yet goes on being known."""
        before = self.hosts
        self.hosts = remember(hosts, self.fresh, self.offers)
        self.stored = True
        for url in before.keys() | self.hosts.keys():
            if _trusted(before.get(url)) != _trusted(self.hosts.get(url)):
                self.changed(url)


def _trusted(known: Known | None) -> str | None:
    return None if known is None else known.fingerprint
