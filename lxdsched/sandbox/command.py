"""The program: a simulated fleet to play with, alone or around another program that shall see it.

Alone it prints one line, `LXD_MULTI_HOSTS='...'`, when every server listens, and serves until it is told to end.
Around a command it gives the same in the command's environment, passes signals on and ends as the command ended.
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IProcessTransport, IReactorCore, IReactorFromThreads, IReactorProcess
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from lxdsched.sandbox.fleet import DEFAULT_PLANS, SandboxFleet
from lxdsched.sandbox.transport import IReactor

_VARIABLE = "LXD_MULTI_HOSTS"
_MOST_HOSTS = 10_000
_SHARE_ABOVE = 20
"""With more servers than this a key pair for each would only cost time."""

_FAILED, _MISUSED = 1, 2
_SIGNAL_BASE = 128
_NOT_FOUND = 127


class IProgramReactor(IReactor, IReactorCore, IReactorFromThreads, IReactorProcess):
    """What the program needs of a reactor."""


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    hosts: int
    address: str
    directory: Path | None
    command: tuple[str, ...]


def parse(argv: Sequence[str]) -> Options:
    """Read the command line; a mistake in it is told on stderr and raises SystemExit(2)."""
    # Everything behind the first `--` is the command, whatever it looks like.
    own, command = list(argv), list[str]()
    if "--" in own:
        place = own.index("--")
        own, command = own[:place], own[place + 1 :]
        if not command:
            own.append("--")
    parser = argparse.ArgumentParser(
        prog="lxdsched sandbox",
        description="Simulate a fleet of LXD servers over real mutual TLS.",
        epilog=f"Everything behind -- is a command, run with {_VARIABLE} in its environment.",
    )
    parser.add_argument("--hosts", type=_count, default=len(DEFAULT_PLANS), metavar="N", help="servers (default 5)")
    parser.add_argument("--address", default="127.0.0.1", metavar="A", help="where they listen (default 127.0.0.1)")
    parser.add_argument(
        "--directory", type=Path, metavar="DIR", help="for the client's certificate and key (default: temporary)"
    )
    known = parser.parse_args(own)
    return Options(known.hosts, known.address, known.directory, tuple(command))


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_HOSTS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {_MOST_HOSTS}")
    return int(text)


def main(argv: Sequence[str]) -> int:
    """Run the program and return its exit status."""
    try:
        options = parse(argv)
    except SystemExit as ended:
        # argparse has said what there is to say, be it help or a complaint.
        return int(ended.code or 0)
    if options.command and shutil.which(options.command[0]) is None:
        print(f"lxdsched sandbox: no such command: {options.command[0]}", file=sys.stderr)
        return _NOT_FOUND
    from twisted.internet import reactor  # noqa: TID251 (a program is the one place to choose the reactor)

    return run(options, reactor)  # type: ignore[arg-type]


def run(options: Options, reactor: IProgramReactor) -> int:
    """Run the program on a reactor that nobody runs yet, and return its exit status."""
    _raise_limit(options.hosts)
    with TemporaryDirectory(prefix="lxdsched-sandbox-") as temporary:
        directory = (options.directory or Path(temporary)).absolute()  # what is printed is used elsewhere
        program = _Program(options, directory, reactor)
        reactor.callWhenRunning(program.begin)
        reactor.run()
        return program.status


def _raise_limit(hosts: int) -> None:
    """Get the file descriptors that so many servers and a few connections to each need, as far as allowed."""
    needed = 256 + 8 * hosts
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Ending(Protocol):
    def __call__(self, signal_number: int) -> None: ...


class _Program:
    def __init__(self, options: Options, directory: Path, reactor: IProgramReactor) -> None:
        self.status = 0
        self._options = options
        self._directory = directory
        self._reactor = reactor
        self._on_signal: _Ending = lambda _: None
        self._fleet = SandboxFleet(
            reactor,
            options.hosts,
            address=options.address,
            shared_certificate=options.hosts > _SHARE_ABOVE,
        )

    def begin(self) -> None:
        """Serve, in the background; the reactor stops at the end, however it comes."""
        work = Deferred.fromCoroutine(self._work())
        work.addErrback(self._fail)
        work.addBoth(lambda _: self._reactor.stop())

    def _fail(self, failure: Failure) -> None:
        self.status = _FAILED
        error = failure.value
        if isinstance(error, CannotListenError):
            problem = f"cannot listen on {self._options.address}: {error.socketError}"
        elif isinstance(error, OSError):
            problem = str(error)
        else:
            problem = f"unexpected: {failure.getErrorMessage()}"
        print(f"lxdsched sandbox: {problem}", file=sys.stderr)

    async def _work(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        # Both signals are ours from here: the reactor's own handler would end us before the command has ended.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)
        await self._fleet.start()
        try:
            hosts = self._fleet.hosts_json(self._directory)
            if self._options.command:
                self.status = await self._around(self._options.command, hosts)
            else:
                print(f"{_VARIABLE}={shlex.quote(hosts)}", flush=True)
                await self._until_signalled()
        finally:
            await self._fleet.stop()

    def _signalled(self, number: int, frame: object) -> None:
        del frame
        self._reactor.callFromThread(lambda: self._on_signal(number))

    async def _until_signalled(self) -> None:
        over: Deferred[None] = Deferred()
        self._on_signal = lambda _: None if over.called else over.callback(None)
        await over

    async def _around(self, command: Sequence[str], hosts: str) -> int:
        ended: Deferred[int] = Deferred()
        process = self._reactor.spawnProcess(
            _Command(ended.callback),
            command[0],
            command,
            os.environ | {_VARIABLE: hosts},
            None,
            None,
            None,
            False,
            {0: 0, 1: 1, 2: 2},
        )
        self._on_signal = lambda number: _pass_on(process, number)
        return await ended


def _pass_on(process: IProcessTransport, number: int) -> None:
    # A terminal has already interrupted the command, together with us.
    if number == signal.SIGINT and sys.stdin is not None and sys.stdin.isatty():
        return
    # An ended process has no number any more.
    if process.pid is not None:
        os.kill(process.pid, number)


class _Command(ProcessProtocol):
    """The command; its streams are ours, so there is nothing to do but to wait."""

    def __init__(self, ended: Callable[[int], None]) -> None:
        self._ended = ended

    def processEnded(self, reason: Failure) -> None:  # noqa: N802
        """Tell how it ended, as a shell does."""
        if reason.check(ProcessTerminated) and isinstance(reason.value, ProcessTerminated):
            number = reason.value.signal
            self._ended(reason.value.exitCode or 0 if number is None else _SIGNAL_BASE + number)
        else:
            assert isinstance(reason.value, ProcessDone)  # noqa: S101
            self._ended(0)
