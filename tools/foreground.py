"""Run a command as the only one that the terminal's Ctrl-C reaches: foreground.py COMMAND ARGUMENT…

make gets the same Ctrl-C as what it runs, and then calls even a clean stop an error. In a process group of its own, in
the terminal's foreground, the command gets it alone, and make ends as the command does.
"""

import os
import signal
import sys


def take_terminal() -> None:
    """Become the terminal's foreground process group, if this one is it now."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
    except OSError:  # no terminal: nobody presses Ctrl-C
        return
    if os.tcgetpgrp(terminal) == os.getpgrp():
        os.setpgid(0, 0)
        # The system stops whoever takes the terminal from the background, unless the signal for it is ignored.
        before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        os.tcsetpgrp(terminal, os.getpgrp())
        signal.signal(signal.SIGTTOU, before)
    os.close(terminal)


if __name__ == "__main__":
    take_terminal()
    os.execv(sys.argv[1], sys.argv[1:])  # nosec B606
