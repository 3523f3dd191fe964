"""LXD and Incus: two programs, nearly one API. What the harness must know to start the one or the other."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.lxd import image

CHECKOUT = Path(__file__).parents[2]


def unpacked_incus() -> Path:
    """Return where Incus' packages are unpacked: `/` when the machine has them installed and LXDSCHED_INCUS says so."""
    return Path(os.environ.get("LXDSCHED_INCUS") or CHECKOUT / ".incus")


@dataclass(frozen=True)
class Flavour:
    """One of the two.

    `setup` is the command that reads a preseed from its standard input, `home` the environment variable that tells a
    program its directory, and `require` the one that, set to 1, makes tests fail where they would be skipped. The
    programs are those that the machine has installed, or with `root` those unpacked there.
    """

    name: str
    daemon: str
    setup: tuple[str, ...]
    home: str
    require: str
    root: Callable[[], Path] | None = None

    def __str__(self) -> str:
        return self.name

    def program(self, name: str) -> str:
        """Find one of its programs; raises FileNotFoundError."""
        if self.root is None:
            found, where = shutil.which(name), "installed"
        else:
            places = [str(self.root() / place) for place in ("usr/libexec/incus", "usr/bin")]
            found, where = shutil.which(name, path=os.pathsep.join(places)), f"in {self.root()}"
        if found is None:
            raise FileNotFoundError(f"{name} is not {where}")
        return found

    def environment(self, directory: Path) -> Mapping[str, str]:
        """Return the environment in which its programs use `directory`, and the libraries that came with them."""
        mine = os.environ | {self.home: str(directory)}
        if self.root is not None:
            libraries = [str(path) for path in self.root().glob("usr/lib/*-linux-gnu")]
            mine["LD_LIBRARY_PATH"] = os.pathsep.join([*libraries, *filter(None, [mine.get("LD_LIBRARY_PATH")])])
        return mine

    def missing(self) -> str | None:
        """Say why it cannot run here, or None when it can."""
        if os.geteuid() != 0:
            return f"{self.name} needs root"
        for name in dict.fromkeys([self.daemon, self.setup[0]]):
            try:
                words = [self.program(name), "--version"]
            except FileNotFoundError as error:
                return f"{error} (make deps gets it)"
            tried = subprocess.run(words, env=self.environment(Path("/")), capture_output=True, check=False)
            if tried.returncode != 0:
                return f"{name} does not run: {tried.stderr.decode(errors='replace').strip()}"
        if shutil.which("unshare") is None:
            return "unshare is not installed"
        if subprocess.run(["unshare", "--mount", "--uts", "true"], capture_output=True, check=False).returncode != 0:
            return "root may not make namespaces here"
        return image.missing()


LXD = Flavour("lxd", "lxd", ("lxd", "init", "--preseed"), "LXD_DIR", "LXDSCHED_REQUIRE_REAL")

INCUS = Flavour(
    "incus",
    "incusd",
    ("incus", "admin", "init", "--preseed"),
    "INCUS_DIR",
    "LXDSCHED_REQUIRE_INCUS",
    unpacked_incus,
)
