"""Signals as a command meets them that was started at a terminal."""

import signal


def let_ctrl_c_through():
    """For `preexec_fn`: SIGINT has its default action, however the tests themselves were started.

    A shell starts what it runs in the background, as `pytest &` in a script, with SIGINT ignored; children
    inherit that, and Python then installs no KeyboardInterrupt.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
