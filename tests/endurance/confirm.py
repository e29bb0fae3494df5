"""`confirm` whole on simulated devices, of any number: the tests have time for one and two.

    python -m tests.endurance.confirm --ranks 8

Prints what confirm prints; the exit code is 1 unless every line has passed. With 8 ranks it takes six minutes
on two cores.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import tempfile

from tests.support import confirming

TRAIN_IMAGES_A_RANK = 50  # for the longest of confirm's runs, at its batch


def main() -> int:
    """Runs it as often as there are numbers of ranks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ranks", default="1,2,8", help="numbers of ranks (default %(default)s)")
    parser.add_argument(
        "--timeout_seconds", type=float, default=3600.0, help="for each (default %(default)s)"
    )
    options = parser.parse_args()
    passed = True
    for ranks in map(int, options.ranks.split(",")):
        with tempfile.TemporaryDirectory(prefix="densenet-confirm-") as name:
            folder = pathlib.Path(name)
            place = confirming.furnish(folder, max(ranks, 2), TRAIN_IMAGES_A_RANK * max(ranks, 2))
            output, found = confirming.confirm(
                place, folder / "log", ranks, timeout_seconds=options.timeout_seconds
            )
        print(output)
        verdicts = confirming.verdicts(found)
        missing = {line for line, verdict in verdicts.items() if verdict != "passed"}
        passed &= missing == (confirming.FOR_SEVERAL if ranks == 1 else set())
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
