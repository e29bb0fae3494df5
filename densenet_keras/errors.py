"""The two failures a command turns into an exit code instead of a traceback."""


class UsageError(Exception):
    """The user asked for something impossible (exit code 2).

    The message names the flag or file, the value, the rule and the remedy.
    """


class RunError(Exception):
    """A run that was validly asked for could not be finished (exit code 1)."""


EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, the shell's convention
EXIT_TERMINATED = 143  # 128 + SIGTERM
# From a rank to its launcher, which tells them apart; the command itself then ends with EXIT_FAILED.
EXIT_HUNG = 69  # no progress, of this rank or of one that it waits for (sysexits.h: EX_UNAVAILABLE)
EXIT_CRASHED = 70  # an exception that nobody foresaw (sysexits.h: EX_SOFTWARE)
