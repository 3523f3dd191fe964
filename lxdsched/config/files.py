"""The files that the configuration names: each read once, those that hold a secret only where nobody else has them.

Those that say whom to believe are read only where nobody else can write them.

What may be read by others is PostgreSQL's rule for its own key: a file of ours has no rights for anybody else, one of
root may be readable by its group, which root has chosen.
"""

from __future__ import annotations

import os
import pwd
import shlex
import stat
from pathlib import Path
from typing import Final

from lxdsched.config.values import Fault
from lxdsched.quoting import cut
from lxdsched.smallfiles import Content, Unreadable, read_small

CREDENTIAL: Final = "credential:"
"""What the name of a file begins with that systemd keeps for us (`LoadCredential=`)."""
CREDENTIALS_VARIABLE: Final = "CREDENTIALS_DIRECTORY"
"""The environment variable in which systemd says where it keeps them."""
MOST_PATH: Final = 300
"""Characters of a path that a fault shows."""

_ROOT = 0
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_BEYOND_ROOTS_GROUP = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO


class Files:
    """Reads files, each once, however many settings name it.

    `credentials` is where systemd keeps ours, None where it keeps none. With `allow_exposed`, which may be set later, a
    secret that others can get at is one of the `warnings` and no Fault. `owner` is the user as whom the daemon will
    run; without it, the one as whom this process does.
    """

    def __init__(self, credentials: str | None, *, allow_exposed: bool, owner: int | None = None) -> None:
        self.warnings: list[str] = []
        self.allow_exposed = allow_exposed
        self._credentials = credentials
        self._owner = os.geteuid() if owner is None else owner
        self._contents: dict[Path, Content | str] = {}

    def again(self) -> Files:
        """Begin anew: what has been read is read again."""
        return Files(self._credentials, allow_exposed=self.allow_exposed, owner=self._owner)

    def path(self, name: str) -> Path:
        """Say where a file is: `credential:NAME` is among systemd's. Fault when it can be nowhere."""
        if "\n" in name or "-----BEGIN" in name:
            raise Fault("holds what should be in a file, not the name of one")  # and may be a key: it is not shown
        if not name.startswith(CREDENTIAL):
            return Path(name)
        plain = name.removeprefix(CREDENTIAL)
        if plain in {"", ".", ".."} or "/" in plain:
            raise Fault(f"{name}: is not {CREDENTIAL}NAME, with the name of a file alone")
        if not self._credentials:
            raise Fault(
                f"{name}: systemd gives us no credentials ({CREDENTIALS_VARIABLE} is not set): "
                f"put LoadCredential={plain}:/PATH into the unit, or name the file itself"
            )
        return Path(self._credentials, plain)

    def read(self, name: str) -> bytes:
        """Read a file. Fault with the file and why when that cannot be."""
        path = self.path(name)
        return self._content(path, cut(str(path), MOST_PATH)).data

    def read_trusted(self, name: str) -> bytes:
        """Read a file that others may read and not write, as what it says is believed. Fault where they may."""
        path = self.path(name)
        content = self._content(path, cut(str(path), MOST_PATH))
        self._refuse(self._open_to_writers(path, content))
        return content.data

    def read_secret(self, name: str, *, named: bool = False) -> bytes:
        """Read a file that nobody else may read or write. Fault where somebody may, with what mends it.

        Its name is shown where it is a whole path, or said to be a name and no secret by itself.
        """
        path = self.path(name)
        # What is no path at all may be the secret itself: people do set a password where its file is wanted.
        content = self._content(
            path, cut(str(path), MOST_PATH) if named or path.is_absolute() else "the file that is named"
        )
        self._refuse(self._exposed(path, content))
        return content.data

    def _refuse(self, exposed: str | None) -> None:
        if exposed is None:
            return
        if not self.allow_exposed:
            raise Fault(exposed)
        if exposed not in self.warnings:
            self.warnings.append(exposed)

    def _content(self, path: Path, shown: str) -> Content:
        if path not in self._contents:
            try:
                self._contents[path] = read_small(path)
            except Unreadable as why:
                self._contents[path] = str(why)
        content = self._contents[path]
        if isinstance(content, str):
            raise Fault(f"{shown}: {content}")
        return content

    def _open_to_writers(self, path: Path, content: Content) -> str | None:
        """Say who else may write a file and what is to be done; None when nobody may. Root may choose a group."""
        mode = stat.S_IMODE(content.mode)
        if not mode & (stat.S_IWOTH if content.owner == _ROOT else stat.S_IWGRP | stat.S_IWOTH):
            return None
        return f"{_described(path, content)}: others can change it: chmod go-w {shlex.quote(str(path))}"

    def _exposed(self, path: Path, content: Content) -> str | None:
        """Say how others get at a secret and what is to be done; None when they do not."""
        where, mode = shlex.quote(str(path)), stat.S_IMODE(content.mode)
        shown = _described(path, content)
        if content.owner == _ROOT:
            if mode & _BEYOND_ROOTS_GROUP:
                return f"{shown}: others can get at it: chmod 0640 {where} or less"
        elif content.owner != self._owner:
            ours = _user(self._owner)
            return (
                f"{shown}: it belongs neither to {ours}, as whom the daemon runs, nor to root: "
                f"chown {ours} {where} && chmod 0600 {where}"
            )
        elif mode & _OTHERS:
            return f"{shown}: others can get at it: chmod 0600 {where}"
        return None


def _described(path: Path, content: Content) -> str:
    return f"{path}: mode {stat.S_IMODE(content.mode):04o}, owner {_user(content.owner)}"


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
