"""`python -m densenet_keras prepare`: from pictures to a data set."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from densenet_keras.commands.progress import Progress
from densenet_keras.commands.tensorflow_import import import_tensorflow
from densenet_keras.data.prepare.options import PrepareOptions
from densenet_keras.errors import EXIT_DONE

if TYPE_CHECKING:
    from densenet_keras.data.prepare.publish import Outcome

Settings = PrepareOptions
EXAMPLE = "my_pictures --data_dir my_data"

_DUPLICATES = {
    "in_both_splits": "are in both splits, so that the evaluation counts what was learned",
    "under_two_labels": "have two labels, one of which is wrong",
}


def run(settings: Settings) -> int:
    """Writes the data set; returns the exit code.

    Raises:
        UsageError, RunError: as everywhere.
    """
    import_tensorflow(log_level="3")  # what the decoders refuse is reported picture by picture
    from densenet_keras.backends import cpu
    from densenet_keras.data.prepare import job  # loads TensorFlow, which --help does not need

    cpu.look_for_accelerators()
    progress = Progress("pictures")
    try:
        outcome = job.prepare(settings, lambda line: print(line, flush=True), progress)
    except KeyboardInterrupt:
        progress.close()
        print("the same command again goes on behind the last whole shard", file=sys.stderr)
        raise
    finally:
        progress.close()
    if outcome is not None:
        _report(settings, outcome)
    return EXIT_DONE


def _report(settings: Settings, outcome: Outcome) -> None:
    changed = [f"{number:,} {name}" for name, number in outcome.changes.items() if number]
    written = " and ".join(f"{number:,} {name}" for name, number in outcome.pictures.items())
    print(f"{settings.data_dir}: {written} pictures" + (f"; {', '.join(changed)}" if changed else ""))
    if outcome.left_out:
        print(f"{outcome.left_out} pictures were left out; {outcome.left_out_file} says which and why")
    if outcome.without_pictures:
        missing = outcome.without_pictures
        print(f"note: {len(missing)} classes have no picture left in a split, such as {missing[0]}")
    for (what, count), examples in zip(outcome.duplicates.items(), outcome.examples):
        if count:
            print(f"note: {count} pictures {_DUPLICATES[what]}; {outcome.duplicates_file} lists them")
            for paths in examples:
                print("  " + " = ".join(paths))
