"""What is done before any secret is read."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import ctypes, resource
from lxdsched.tap import Options
libc = ctypes.CDLL(None)
before = libc.prctl(3, 0, 0, 0, 0)  # PR_GET_DUMPABLE
try:
    Options().parseOptions(["--port=x"])
except SystemExit:
    pass
print(before, libc.prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_before_any_secret_is_read_the_process_can_no_longer_be_dumped() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == "1 0 (0, 0)\n"


def test_where_the_system_cannot_it_goes_on() -> None:
    program = (
        "import ctypes, errno\n"
        "class Refusing:\n"
        "    def prctl(self, *arguments): return -1\n"
        "for libc in (Refusing(), object()):\n"
        "    ctypes.CDLL = lambda *arguments, libc=libc, **more: libc\n"
        "    from lxdsched.coredumps import forbid_core_dumps\n"
        "    forbid_core_dumps()\n"
        "print('on')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "on\n"


def test_whoever_twistd_is_told_to_become_owns_the_keys() -> None:
    program = (
        "from lxdsched import tap\n"
        "def load(sources, strategies): print(sources.user)\n"
        "tap.load = load\n"
        "for parent in (None, {'uid': None}, {'uid': 4711}):\n"
        "    options = tap.Options()\n"
        "    options.parent = parent\n"
        "    options.parseOptions([])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "None\nNone\n4711\n"
