"""Puts the configuration together: option before environment before file before default."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from lxdsched.certificates import Register
from lxdsched.config.files import CREDENTIALS_VARIABLE, MOST_PATH, Files
from lxdsched.config.guard import Guard, GuardFiles
from lxdsched.config.hosts import Defaults, HostReader
from lxdsched.config.listener import ListenerReader
from lxdsched.config.redis import ADDR_VARIABLE, RedisReader, has_password
from lxdsched.config.settings import PREFIX, SETTINGS, Setting
from lxdsched.config.state import state_directory, unremembered
from lxdsched.config.values import Fault
from lxdsched.config.whole import Config, Sources
from lxdsched.fleet.settings import Counting, HostSettings, Patience
from lxdsched.limits import Unlimited
from lxdsched.listener.settings import Bounds
from lxdsched.quoting import MOST_QUOTED, cut, one_line, quoted
from lxdsched.smallfiles import read_toml
from lxdsched.spelling import meant

CONFIG_VARIABLE = PREFIX + "CONFIG"
"""The environment variable that names the file."""


_OF_HOSTS = frozenset(
    {"hosts", "client_cert", "client_key", "over_commit_percent", "reserve_memory", "allow_exposed_keys"}
)
"""Settings that are about hosts alone, or about how files are read."""

MOST_FAULTS = 100
"""Faults that are shown."""
MOST_FAULT = 1000
"""Characters of a fault that are shown."""

FOREIGN_VARIABLES = frozenset({PREFIX + "ADDRESS", PREFIX + "FETCH_INTERVAL_SECOND"})
"""Variables of the shoes-lxd-multi server and of its own scheduler, which may be in the same environment."""


class ConfigError(Exception):
    """The configuration cannot be used. `faults` are all that is wrong with it, each naming its key or file.

    Each is one line of bounded length, and only the first of very many are kept. `warnings` are what may have led to
    them, or would be said without them: a name with a typing error is one.
    """

    def __init__(self, faults: list[str], warnings: Iterable[str] = ()) -> None:
        self.warnings = tuple(warnings)
        self.faults = [cut(one_line(fault), MOST_FAULT) for fault in faults[:MOST_FAULTS]]
        if len(faults) > MOST_FAULTS:
            self.faults.append(f"and {len(faults) - MOST_FAULTS} more")
        super().__init__("\n".join(self.faults))


def load(sources: Sources, strategies: Collection[str]) -> Config:
    """Read the whole configuration. ConfigError with every fault when there is one.

    `strategies` are the names that `strategy` and `allow_strategies` may use.
    """
    return _Loader(sources, strategies).load()


def _reread(guard_files: GuardFiles, files: Files) -> Guard:
    faults: list[str] = []
    anew = files.again()
    guard = guard_files.load(anew, faults)
    if faults:
        raise ConfigError(faults)
    return replace(guard, warnings=(*guard.warnings, *anew.warnings))


def find(sources: Sources, name: str) -> tuple[str, Any]:
    """Read one setting, whatever is wrong with others: where it was found, and its value.

    ConfigError when it, or the file it may be in, is faulty.
    """
    return _Loader(sources, ()).find(name)


class _Loader:
    def __init__(self, sources: Sources, strategies: Collection[str]) -> None:
        self._sources = sources
        self._strategies = strategies
        self._faults: list[str] = []
        self._file: Mapping[str, object] = {}
        self._path = sources.file or sources.environment.get(CONFIG_VARIABLE) or None
        credentials = sources.environment.get(CREDENTIALS_VARIABLE)
        self._files = Files(credentials, allow_exposed=False, owner=sources.user)
        self._register = Register()

    def load(self) -> Config:
        self._read_file()
        given = {setting.name: self._setting(setting) for setting in SETTINGS}
        values: dict[str, Any] = {name: value for name, (_, value) in given.items()}
        for name in ("strategy", "allow_strategies"):
            self._check_strategies(given[name][0], values[name])
        self._files.allow_exposed = bool(values["allow_exposed_keys"])
        self._guard_file()
        sources = {name: source for name, (source, _) in given.items()}
        hosts = self._hosts(given["hosts"][1], values, sources)
        reader = RedisReader(values, sources, self._files, self._register, self._faults)
        redis = reader.read(self._sources.environment.get(ADDR_VARIABLE, ""))
        listener = ListenerReader(values, sources, {each.name: each.default for each in SETTINGS}, self._faults)
        listening, guard_files = listener.listening(), listener.guard_files()
        before = len(self._faults)
        guard = guard_files.load(self._files, self._faults)
        warnings = [*self._strays(), *self._files.warnings]
        if len(self._faults) == before:
            warnings += guard.warnings
        state = state_directory(*given["state_directory"], self._sources.environment, self._faults)
        if self._faults:
            raise ConfigError(self._faults, warnings)
        return Config(
            hosts=hosts,
            again=partial(load, self._sources, self._strategies),
            fixed={name: value for name, value in values.items() if name not in _OF_HOSTS},
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
            listening=listening,
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
            guard=guard,
            reread=partial(_reread, guard_files, self._files),
            reread_files=guard_files.paths(self._files),
            state_directory=state,
            warnings=(*warnings, *unremembered(hosts, state)),
            certificates=self._register.all(),
        )

    def find(self, name: str) -> tuple[str, object]:
        self._parse_file()
        (setting,) = (setting for setting in SETTINGS if setting.name == name)
        unread = list(self._faults)
        source, value = self._setting(setting)
        if len(self._faults) > len(unread) or (value is None and unread):
            raise ConfigError(self._faults)
        return source, value

    def _read_file(self) -> None:
        self._parse_file()
        known = [setting.name for setting in SETTINGS]
        strange = [key for key in self._file if key not in known]
        for key in strange[:MOST_FAULTS]:
            name = cut(key, MOST_QUOTED)
            self._faults.append(f"{self._path}: {name}: is not a setting{meant(name, known)}")

    def _parse_file(self) -> None:
        if self._path is None:
            return
        try:
            self._file = read_toml(self._files.read(self._path))
        except Fault as fault:
            self._faults.append(str(fault))
        except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, or of a number with too many digits
            self._faults.append(f"{self._path}: not a TOML file: {error}")

    def _guard_file(self) -> None:
        """Refuse a file that others can write, or read where it holds a password, whether that counts or not."""
        if self._path is None or not self._file:
            return
        secret = has_password(self._file.get("redis_url"))
        try:
            (self._files.read_secret if secret else self._files.read_trusted)(self._path)
        except Fault as fault:
            self._faults.append(f"{fault}{' (redis_url has a password)' if secret else ''}")

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
            return f"{cut(str(self._path), MOST_PATH)}: {setting.name}", self._file[setting.name]
        return setting.variable, setting.default

    def _check_strategies(self, source: str, names: object) -> None:
        for name in [names] if isinstance(names, str) else names if isinstance(names, tuple) else []:
            if name not in self._strategies:
                known = ", ".join(sorted(self._strategies))
                self._faults.append(f"{source}: {quoted(name)} is not a strategy; these are: {known}")

    def _hosts(
        self, entries: object, values: Mapping[str, Any], sources: Mapping[str, str]
    ) -> tuple[HostSettings, ...]:
        source = sources["hosts"]
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
                sources,
                values["client_cert"],
                values["client_key"],
                values["over_commit_percent"] or 100,
                values["reserve_memory"] or 0,
            ),
            self._files,
            self._register,
            self._faults,
        )
        return reader.read(source, entries)

    def _strays(self) -> list[str]:
        known = {setting.variable for setting in SETTINGS} | {CONFIG_VARIABLE}
        ours = {name for name in self._sources.environment if name.startswith(PREFIX)}
        strays = sorted(ours - known - FOREIGN_VARIABLES)
        shown = [cut(one_line(name), MOST_QUOTED) for name in strays[:MOST_FAULTS]]
        return [f"{name} is not a setting of lxdsched{meant(name, sorted(known))}; ignored" for name in shown]
