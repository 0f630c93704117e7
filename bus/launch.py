"""Run as a script before a child's own program: ties the child to its supervisor, then becomes that program.

`python -I -S launch.py SUPERVISOR_PID PROGRAM ARGUMENT…`. The child gets a process group of its own. On Linux the
kernel sends SIGTERM to the child when the supervisor dies, however it dies; elsewhere only the next start's clean-up
ends leftovers. A script of its own, and not `preexec_fn`, because forking with Python code in between is unsafe as soon
as the parent has a thread.
"""

import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    supervisor, program = int(sys.argv[1]), sys.argv[2:]
    os.setpgrp()
    # SIGHUP says that the configuration has changed; until a part listens it must not end it (`bus.part` looks then)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != supervisor:  # it died before the line above
            sys.exit(1)
    os.execv(program[0], program)  # noqa: S606  there is no shell here on purpose


if __name__ == "__main__":
    main()
