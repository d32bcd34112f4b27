"""The watch over a keeper: ``guard.py SECONDS DIRECTORY PIDFD...``, run as a file and without any package.

Standard input is a pipe, and the keeper writes to it as long as it is well. If it says nothing for so long, it stands
still (SIGSTOP, a debugger, no memory), and so does its watch over the lease: then the processes behind PIDFD are
killed, so that nothing reaches the LUN any more. The input ends when the keeper and those processes are gone. We are
the last process of the keeper's mount namespace: only now is the file system unmounted, and what was not written goes
nowhere.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from contextlib import suppress


def main() -> None:
    """Watch until the input ends."""
    limit: float | None = float(sys.argv[1])
    while True:
        if select.select([0], [], [], limit)[0]:
            if not os.read(0, 4096):
                return
            continue
        for process in sys.argv[3:]:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(int(process), signal.SIGKILL)
        limit = None


if __name__ == "__main__":
    main()
