"""The smallest image that LXD really runs: busybox, and an init that stops when it is told to."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

ALIAS = "tiny"
DIRECTORIES = ("bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp", "var")

# LXD asks a container to stop by SIGPWR; a signal is handled only between a shell's commands, hence the wait.
INIT = b"""#!/bin/sh
trap 'exit 0' TERM PWR INT
while :; do
    /bin/busybox sleep 3600 &
    wait $!
done
"""

METADATA = """architecture: {architecture}
creation_date: 1700000000
properties:
  description: {alias}
  os: busybox
  release: "1"
"""


def missing() -> str | None:
    """Say why the image cannot be built here, or None when it can."""
    path = shutil.which("busybox")
    if path is None:
        return "busybox is not installed (make deps installs busybox-static)"
    # A program that needs shared libraries names its loader near its beginning.
    with open(path, "rb") as file:
        if b"/ld-linux" in file.read(4096):
            return "busybox is not a static program (make deps installs busybox-static)"
    return None


def build() -> bytes:
    """Return the image as a tar archive, byte for byte the same at every call."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise FileNotFoundError("busybox")
    metadata = METADATA.format(architecture=os.uname().machine, alias=ALIAS)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        _add(tar, "metadata.yaml", metadata.encode())
        for name in DIRECTORIES:
            directory = tarfile.TarInfo(f"rootfs/{name}")
            directory.type = tarfile.DIRTYPE
            directory.mode = 0o755
            tar.addfile(directory)
        _add(tar, "rootfs/bin/busybox", Path(busybox).read_bytes(), mode=0o755)
        shell = tarfile.TarInfo("rootfs/bin/sh")
        shell.type = tarfile.SYMTYPE
        shell.linkname = "busybox"
        tar.addfile(shell)
        _add(tar, "rootfs/sbin/init", INIT, mode=0o755)
    return archive.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = mode
    tar.addfile(entry, io.BytesIO(content))
