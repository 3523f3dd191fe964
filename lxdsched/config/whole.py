"""The whole configuration, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lxdsched.certificates import OurCertificate
from lxdsched.config.guard import Guard
from lxdsched.fleet.settings import Counting, HostSettings, Patience
from lxdsched.ledger.settings import RedisSettings
from lxdsched.listener.settings import Bounds, Listening


@dataclass(frozen=True, slots=True)
class Sources:
    """Where settings come from. `options` are those given, without dashes; `file` is the TOML file's path.

    `user` is the number of the user as whom the daemon will run, where that is not who reads the configuration.
    """

    options: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    file: str | None = None
    user: int | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """A whole and valid configuration. Durations are in seconds; `warnings` are for the log, once it runs.

    `again` reads all of it again, with a ConfigError when it cannot be used. Of that `hosts` may be taken over by a
    daemon that runs; `fixed` are the values, by the settings' names, that it has for good.

    `certificates` are those of its files whose ends matter, but for those of `guard`, which `reread` reads again from
    `reread_files`, with a ConfigError when it cannot be used. Without `redis` this scheduler is the only one.
    `on_ledger_failure` is `answer` or `refuse`. Without `state_directory` nothing is remembered across restarts.
    """

    hosts: tuple[HostSettings, ...]
    again: Callable[[], Config] = field(repr=False, compare=False)
    fixed: Mapping[str, object] = field(repr=False)
    strategy: str
    allow_strategies: tuple[str, ...]
    patience: Patience
    counting: Counting
    listening: Listening
    bounds: Bounds
    reservation_ttl: float
    stop_timeout: float
    log_level: str
    log_format: str
    redis: RedisSettings | None = None
    on_ledger_failure: str = "answer"
    guard: Guard = field(default_factory=Guard)
    reread: Callable[[], Guard] = Guard
    reread_files: tuple[Path, ...] = ()
    state_directory: str | None = None
    warnings: tuple[str, ...] = ()
    certificates: tuple[OurCertificate, ...] = ()
