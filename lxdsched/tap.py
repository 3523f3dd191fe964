"""`twistd lxdsched`: its options, and the service it runs."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, cast

from twisted.application.service import IService
from twisted.logger import ILogObserver, Logger
from twisted.python import usage
from twisted.python.logfile import LogFile

from lxdsched import logs
from lxdsched.config import SETTINGS, Config, ConfigError, Sources, load
from lxdsched.coredumps import forbid_core_dumps
from lxdsched.plugins import strategies
from lxdsched.service import Reactor, build
from lxdsched.spelling import counted
from lxdsched.systemd import journal
from lxdsched.systemd.manager import manager

OPEN_FILES = 65_536
"""Files and sockets that the daemon may have open: one or two for each host and each client."""

FAULTY = os.EX_CONFIG
"""The exit status where the configuration has faults: what starts daemons need not try again."""


class Options(usage.Options):
    """The options of `twistd lxdsched`: one for every setting, each stronger than its environment variable."""

    synopsis = "[options]"
    longdesc = (
        "Answers over HTTP on which LXD host the next instance shall go. Every option is also an environment "
        "variable and a key of the configuration file; options win over variables, variables over the file."
    )
    optParameters = [  # noqa: N815  # Twisted's name
        ["config", "c", None, "the TOML file with further settings (LXD_MULTI_SCHEDULER_CONFIG)"],
        *(
            [setting.option, None, None, f"{setting.help} ({setting.variable}, default {setting.shown_default})"]
            for setting in SETTINGS
        ),
    ]

    config: Config

    def opt_version(self) -> None:
        """Show the version and leave."""
        from lxdsched import __version__

        print(f"lxdsched {__version__}")
        sys.exit(0)

    def postOptions(self) -> None:  # noqa: N802
        """Read the whole configuration. SystemExit(78) when it cannot be used, with every fault on standard error."""
        forbid_core_dumps()
        given = {name: value for name, value in self.items() if isinstance(value, str) and name != "config"}
        user = None if self.parent is None else self.parent.get("uid")
        self.strategies = strategies()
        try:
            self.config = load(Sources(given, os.environ, self["config"], user), self.strategies)
        except ConfigError as error:
            lines = [*error.faults, *(f"warning: {warning}" for warning in error.warnings)]
            first = f"lxdsched cannot start, its configuration has {counted(len(error.faults), 'fault')}:"
            print("\n  ".join([first, *lines]), file=sys.stderr)
            raise SystemExit(FAULTY) from None


def makeService(options: Options) -> IService:  # noqa: N802  # the name that twistd looks for
    """Build the daemon on the global reactor."""
    from twisted.internet import reactor  # noqa: TID251  # here, and nowhere else

    # Deadlines, intervals and ages are to go on evenly when somebody sets the machine's clock.
    reactor.seconds = time.monotonic  # type: ignore[method-assign]
    reactor.callWhenRunning(_stop_once)
    reactor.callWhenRunning(forbid_core_dumps)  # again: where twistd changes the user, the system forgets a part of it
    _open_files()
    config = options.config
    stream = _stream(options.parent or {})
    if isinstance(stream, LogFile) and signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
        # What twistd does with a log file of its own.
        signal.signal(signal.SIGUSR1, lambda *_: cast(Reactor, reactor).callFromThread(stream.rotate))
    observer = None if stream is None else _observer(stream, config)
    wall = time.time  # noqa: TID251  # for the times that people see
    daemon = build(
        config, options.strategies, cast(Reactor, reactor), wall, observer=observer, manager=manager(os.environ)
    )
    signal.signal(signal.SIGHUP, lambda *_: cast(Reactor, reactor).callFromThread(daemon.reload))
    return daemon


def _observer(stream: logs.Stream, config: Config) -> ILogObserver:
    form = config.log_format
    if form == "journal" or (form == "auto" and journal.is_journal(stream, os.environ)):
        try:
            return journal.observer(config.log_level)
        except journal.JournalError as error:
            if form == "journal":
                raise SystemExit(f"lxdsched cannot start: {error}") from None
    return logs.observer(stream, config.log_level, form)


def _stop_once() -> None:
    """Take the first signal to stop for what it says, and further ones for impatience, which Twisted calls an error."""
    heard = False

    def wrap(stop: Callable[[int, FrameType | None], object]) -> Callable[[int, FrameType | None], None]:
        def hear(number: int, frame: FrameType | None) -> None:
            nonlocal heard
            if heard:
                Logger().info("already stopping; requests in flight are being answered")
                return
            heard = True
            stop(number, frame)

        return hear

    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        if callable(handler):
            signal.signal(number, wrap(handler))


def _open_files() -> None:
    """Allow as many open files as thousands of hosts and clients need, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _stream(twistd: Mapping[str, Any]) -> logs.Stream | None:
    """Open what twistd would log to; None where it must be left to it (`--syslog`)."""
    if twistd.get("syslog"):
        return None
    path = twistd.get("logfile") or ("-" if twistd.get("nodaemon") else "twistd.log")
    try:
        return sys.stdout if path == "-" else cast(logs.Stream, LogFile.fromFullPath(path))
    except OSError as error:
        raise SystemExit(f"lxdsched cannot start, its log cannot be written: {path}: {error.strerror}") from None
