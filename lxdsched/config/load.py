"""Puts the configuration together: option before environment before file before default."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from lxdsched.config.hosts import Defaults, HostReader
from lxdsched.config.redis import ADDR_VARIABLE, RedisReader
from lxdsched.config.settings import PREFIX, SETTINGS, Setting
from lxdsched.config.values import Fault
from lxdsched.fleet.settings import Counting, HostSettings, Patience
from lxdsched.ledger.settings import RedisSettings
from lxdsched.limits import Unlimited
from lxdsched.listener.settings import Bounds
from lxdsched.spelling import meant

CONFIG_VARIABLE = PREFIX + "CONFIG"
"""The environment variable that names the file."""


FOREIGN_VARIABLES = frozenset({PREFIX + "ADDRESS", PREFIX + "FETCH_INTERVAL_SECOND"})
"""Variables of the shoes-lxd-multi server and of its own scheduler, which may be in the same environment."""


class ConfigError(Exception):
    """The configuration cannot be used. `faults` are all that is wrong with it, each naming its key or file."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Sources:
    """Where settings come from. `options` are those given, without dashes; `file` is the TOML file's path."""

    options: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """A whole and valid configuration. Durations are in seconds; `warnings` are for the log, once it runs.

    Without `redis` this scheduler is the only one. `on_ledger_failure` is `answer` or `refuse`.
    """

    hosts: tuple[HostSettings, ...]
    port: int
    interface: str
    strategy: str
    allow_strategies: tuple[str, ...]
    patience: Patience
    counting: Counting
    bounds: Bounds
    reservation_ttl: float
    stop_timeout: float
    log_level: str
    log_format: str
    redis: RedisSettings | None = None
    on_ledger_failure: str = "answer"
    warnings: tuple[str, ...] = ()


def load(sources: Sources, strategies: Collection[str]) -> Config:
    """Read the whole configuration. ConfigError with every fault when there is one.

    `strategies` are the names that `strategy` and `allow_strategies` may use.
    """
    return _Loader(sources, strategies).load()


class _Loader:
    def __init__(self, sources: Sources, strategies: Collection[str]) -> None:
        self._sources = sources
        self._strategies = strategies
        self._faults: list[str] = []
        self._file: Mapping[str, object] = {}
        self._path = sources.file or sources.environment.get(CONFIG_VARIABLE) or None

    def load(self) -> Config:
        self._read_file()
        given = {setting.name: self._setting(setting) for setting in SETTINGS}
        values: dict[str, Any] = {name: value for name, (_, value) in given.items()}
        for name in ("strategy", "allow_strategies"):
            self._check_strategies(given[name][0], values[name])
        hosts = self._hosts(*given["hosts"], values)
        sources = {name: source for name, (source, _) in given.items()}
        redis = RedisReader(values, sources, self._faults).read(self._sources.environment.get(ADDR_VARIABLE, ""))
        if self._faults:
            raise ConfigError(self._faults)
        return Config(
            hosts=hosts,
            port=values["port"],
            interface=values["interface"],
            strategy=values["strategy"],
            allow_strategies=values["allow_strategies"],
            patience=Patience(
                connect=values["connect_timeout"],
                question=values["host_timeout"],
                probe_first=values["probe_interval"],
                probe_most=values["probe_interval_max"],
                poll=values["poll_interval"],
                capacity=values["capacity_interval"],
                stale=values["max_stale"],
                ping=values["ping_interval"],
                answer_size=values["max_answer_size"],
            ),
            counting=Counting(
                exempt=frozenset(values["exempt_statuses"]),
                unlimited=Unlimited(values["unlimited_cpu"], values["unlimited_memory"]),
            ),
            bounds=Bounds(
                body=values["max_body_size"],
                head=values["max_header_size"],
                sending=values["request_timeout"],
                idle=values["idle_timeout"],
                connections=values["max_connections"],
                connections_per_peer=values["max_connections_per_peer"],
                requests=values["max_requests"],
                rate_per_peer=values["max_rate_per_peer"],
            ),
            reservation_ttl=values["reservation_ttl"],
            stop_timeout=values["stop_timeout"],
            log_level=values["log_level"],
            log_format=values["log_format"],
            redis=redis,
            on_ledger_failure=values["on_ledger_failure"],
            warnings=tuple(self._strays()),
        )

    def _read_file(self) -> None:
        if self._path is None:
            return
        try:
            self._file = tomllib.loads(Path(self._path).read_text(encoding="utf-8"))
        except OSError as error:
            self._faults.append(f"{self._path}: {error.strerror}")
        except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, or of a number with too many digits
            self._faults.append(f"{self._path}: not a TOML file: {error}")
        known = [setting.name for setting in SETTINGS]
        for key in self._file:
            if key not in known:
                self._faults.append(f"{self._path}: {key}: is not a setting{meant(key, known)}")

    def _setting(self, setting: Setting) -> tuple[str, object]:
        """Find a setting; return where it was found, and its value (None after a fault)."""
        source, raw = self._find(setting)
        if raw is None:
            return source, None
        try:
            return source, setting.read(raw)
        except Fault as fault:
            self._faults.append(f"{source}: {fault}")
        except (OverflowError, ValueError):
            self._faults.append(f"{source}: is beyond all numbers")
        return source, None

    def _find(self, setting: Setting) -> tuple[str, object]:
        if setting.option in self._sources.options:
            return f"--{setting.option}", self._sources.options[setting.option]
        if self._sources.environment.get(setting.variable, "").strip():
            return setting.variable, self._sources.environment[setting.variable]
        if setting.name in self._file:
            return f"{self._path}: {setting.name}", self._file[setting.name]
        return setting.variable, setting.default

    def _check_strategies(self, source: str, names: object) -> None:
        for name in [names] if isinstance(names, str) else names if isinstance(names, tuple) else []:
            if name not in self._strategies:
                known = ", ".join(sorted(self._strategies))
                self._faults.append(f"{source}: {name!r} is not a strategy; these are: {known}")

    def _hosts(self, source: str, entries: object, values: Mapping[str, Any]) -> tuple[HostSettings, ...]:
        if entries is None:
            self._faults.append(f"{source}: is not set: name the LXD hosts, as the shoes-lxd-multi server has them")
            return ()
        if isinstance(entries, str):
            try:
                entries = msgspec.json.decode(entries)
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                self._faults.append(f"{source}: is not JSON: {error}")
                return ()
        reader = HostReader(
            Defaults(
                values["client_cert"],
                values["client_key"],
                values["over_commit_percent"] or 100,
                values["reserve_memory"] or 0,
            ),
            self._faults,
        )
        return reader.read(source, entries)

    def _strays(self) -> list[str]:
        known = {setting.variable for setting in SETTINGS} | {CONFIG_VARIABLE}
        ours = {name for name in self._sources.environment if name.startswith(PREFIX)}
        strays = sorted(ours - known - FOREIGN_VARIABLES)
        return [f"{name} is not a setting of lxdsched{meant(name, sorted(known))}; ignored" for name in strays]
