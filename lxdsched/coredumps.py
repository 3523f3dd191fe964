"""No image of the process, with keys and passwords in it, is left where others find it."""

from __future__ import annotations

import ctypes
import os
import resource

from twisted.logger import Logger

PR_SET_DUMPABLE = 4
"""Linux's prctl.h: whether a core may be dumped, and whether others of the same user may look into the process."""

_log = Logger()


def forbid_core_dumps() -> None:
    """Have no core dumped when the process crashes, and let only root look into its memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        # The limit alone does not keep the kernel from handing a core to a program (systemd-coredump).
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    except (OSError, AttributeError) as error:
        _log.debug("the system may still dump a core: {error}", error=error)
