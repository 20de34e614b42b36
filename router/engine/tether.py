"""``python -m router.engine.tether PARENT COMMAND…``: runs a command that dies with its parent.

A supervisor that is killed outright cannot stop its children, and they would hold ports and memory for
ever. On Linux the kernel does it (``PR_SET_PDEATHSIG`` outlives ``exec``); elsewhere this only runs the
command.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the kernel was told
            sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
