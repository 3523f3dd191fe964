"""Where the Redis is that several schedulers share, and as whom we come to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from lxdsched.tls import Identity, Trust

REDIS_PORT = 6379
"""Where Redis listens unless told otherwise."""
SENTINEL_PORT = 26379
"""Where a Sentinel does."""


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host, by name or by IP address without brackets, and a port."""

    host: str
    port: int = REDIS_PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The path of a Unix socket."""

    path: str

    def __str__(self) -> str:
        return self.path


Address = TcpAddress | UnixAddress


@dataclass(frozen=True, slots=True)
class RedisTls:
    """TLS towards servers and Sentinels alike: whom we trust, and the certificate that we come with, if any."""

    trust: Trust
    identity: Identity | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """As whom we come. Without a user it is the default one; without a password we do not say who we are."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """One Redis. `addresses` are servers, tried in turn, or Sentinels where `service` names what they watch.

    `timeout` is the longest that a request waits for Redis, in seconds; `prefix` is what our keys begin with, and has
    no braces.
    """

    addresses: tuple[Address, ...]
    service: str | None = None
    account: Account = Account()
    sentinel_account: Account = Account()
    database: int = 0
    tls: RedisTls | None = None
    timeout: float = 0.25
    prefix: str = "lxdsched"

    @property
    def shown(self) -> str:
        """It as a URL without any secret, for people."""
        addresses = ",".join(map(str, self.addresses))
        if isinstance(self.addresses[0], UnixAddress):
            return f"unix:{addresses}" + (f"?db={self.database}" if self.database else "")
        scheme = ("rediss" if self.tls else "redis") + ("+sentinel" if self.service is not None else "")
        service = f"/{self.service}" if self.service is not None else ""
        return f"{scheme}://{addresses}{service}" + (f"/{self.database}" if self.database else "")
