"""A Debian 12 with systemd in a container of a real LXD, which is also the host that the daemon in it looks after."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.lxd import residue
from tests.lxd.daemon import GUARD, NO_INTERNET, free_port

NAME = "debian"
PATIENCE = 120.0
"""Seconds for anything that is waited for."""
PAUSE = 0.2

API = 18443
"""The port in the container that leads to LXD."""
PORT = 8080
"""The port in the container on which the daemon listens."""

METADATA = "architecture: x86_64\ncreation_date: 1\nproperties:\n  os: debian\n  release: bookworm\n"


class Failed(Exception):  # noqa: N818
    """A step did not do what it must."""


def until(what: str, true: Callable[[], bool], seconds: float = PATIENCE) -> float:
    """Wait until something is true; return how many seconds that took. Failed when it takes too long."""
    start = time.monotonic()
    while not true():
        if time.monotonic() - start > seconds:
            raise Failed(f"{what}: not within {seconds:g} s")
        time.sleep(PAUSE)
    return time.monotonic() - start


class Machine:
    """An LXD of its own, and the container in it. `close` ends both, whatever state they are in.

    `root` is the tar file of the container's root file system.
    """

    def __init__(self, root: Path) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="lxs"))
        GUARD.watch(self.directory)
        self.lxd_port = free_port("127.0.0.1")
        self.port = free_port("127.0.0.1")
        self._root = root
        self._environment = os.environ | NO_INTERNET
        self._environment |= {"LXD_DIR": str(self.directory), "LXD_CONF": str(self.directory / "client")}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """LXD's address, as the container sees it."""
        return f"https://127.0.0.1:{API}"

    @property
    def service(self) -> str:
        """The daemon's address, as this side sees it."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start LXD and in it the container, and wait until its systemd has started all."""
        self._process = subprocess.Popen(
            ["lxd", "--group", "root", "--logfile", str(self.directory.with_suffix(".log"))],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._local("lxd", "waitready", "--timeout=60")
        self.lxc("config", "set", "core.https_address", f"127.0.0.1:{self.lxd_port}")
        self.lxc("storage", "create", "default", "dir")
        self.lxc("profile", "device", "add", "default", "root", "disk", "path=/", "pool=default")
        self.lxc("image", "import", str(self._metadata()), str(self._root), "--alias", NAME)
        self.lxc("init", NAME, NAME)
        proxies = (
            ("api", f"listen=tcp:127.0.0.1:{API}", f"connect=tcp:127.0.0.1:{self.lxd_port}", "bind=instance"),
            ("service", f"listen=tcp:127.0.0.1:{self.port}", f"connect=tcp:127.0.0.1:{PORT}", "bind=host"),
        )
        for name, *how in proxies:
            self.lxc("config", "device", "add", NAME, name, "proxy", *how)
        self.lxc("start", NAME)
        until("systemd has started", lambda: self._quiet("systemctl is-system-running") not in {"starting", ""})

    def close(self) -> None:
        """End all of it, and leave nothing behind."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        residue.clean(self.directory)
        GUARD.release(self.directory)

    def lxc(self, *words: str) -> str:
        """Run `lxc` on the LXD; return what it prints. Failed when it fails."""
        return self._local("lxc", *words)

    def push(self, content: bytes, path: str, mode: str = "0644") -> None:
        """Write a file of root's into the container."""
        print(f"   (writes {path}, mode {mode})", flush=True)
        with tempfile.NamedTemporaryFile(dir=self.directory) as file:
            file.write(content)
            file.flush()
            self.lxc("file", "push", "--uid=0", "--gid=0", f"--mode={mode}", file.name, f"{NAME}{path}")

    def run(self, command: str, *, status: int | None = 0, shown: bool = True) -> str:
        """Run a command in the container as root; show and return what it prints. Failed for another exit status.

        With `status` None any will do.
        """
        if shown:
            print(f"   # {command}", flush=True)
        done = self._exec(command)
        said = done.stdout + done.stderr
        if shown:
            print("".join(f"   {line}\n" for line in said.splitlines()), end="", flush=True)
        if status is not None and done.returncode != status:
            raise Failed(f"`{command}` ended with {done.returncode}, not {status}: {said}")
        return said.strip()

    def start_in_background(self, command: str) -> subprocess.Popen[str]:
        """Start a command in the container, with its output for us to read."""
        print(f"   # {command} &", flush=True)
        return subprocess.Popen(
            ["lxc", "exec", NAME, "--", "sh", "-c", command],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ask(self, path: str, *options: str, shown: bool = True) -> tuple[int, Any]:
        """Ask the daemon by curl from outside of the container; return status (0 without one) and answer."""
        words = ["curl", "--silent", "--max-time", "10", "--write-out", "\n%{http_code}", *options, self.service + path]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        body, _, status = done.stdout.rpartition("\n")
        if shown:
            print(f"   $ curl {' '.join(options)} {path}\n   {status} {body.strip()[:300]}", flush=True)
        with contextlib.suppress(ValueError):
            return int(status), json.loads(body)
        return int(status), body

    def show(self, *properties: str) -> tuple[str, ...]:
        """Return what systemd says of the daemon's service."""
        said = self._quiet(f"systemctl show lxdsched.service --property={','.join(properties)}")
        values = dict(line.split("=", 1) for line in said.splitlines())
        return tuple(values[name] for name in properties)

    def _quiet(self, command: str) -> str:
        return self._exec(command).stdout.strip()

    def _exec(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["lxc", "exec", NAME, "--", "sh", "-c", command],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def _local(self, *words: str) -> str:
        done = subprocess.run(
            words, env=self._environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise Failed(f"`{' '.join(words)}` ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def _metadata(self) -> Path:
        path = self.directory / "metadata.tar"
        with tarfile.open(path, "w") as tar:
            entry = tarfile.TarInfo("metadata.yaml")
            entry.size = len(METADATA)
            tar.addfile(entry, io.BytesIO(METADATA.encode()))
        return path
