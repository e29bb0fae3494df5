"""`python -m densenet_keras verify`: which checkpoints are whole."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

from densenet_keras.commands.tensorflow_import import import_tensorflow
from densenet_keras.errors import EXIT_DONE, EXIT_FAILED, UsageError
from densenet_keras.settings.setting import flag

EXAMPLE = "run"


@dataclass(frozen=True)
class Settings:
    """Verify: which checkpoints are whole.

    Reads every byte of a run folder's checkpoints, those in its folder best included, or of one checkpoint,
    and compares it with the manifest. Exit code 0 if all is whole, 1 if something is not.
    """

    path: str = flag(
        "", "run folder, checkpoint, or one of a checkpoint's files", positional=True, metavar="PATH"
    )
    json: bool = flag(False, "print the findings as JSON instead of as text")


def run(settings: Settings) -> int:
    """Prints what was found; returns the exit code."""
    if not settings.path:
        raise UsageError("PATH is missing: give a run folder or a checkpoint")
    import_tensorflow(log_level="3")  # what it says of damaged files is said in the findings
    from densenet_keras.checkpoints import verification

    def reading(path: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"reading {path}\n")

    findings = verification.verify(settings.path, reading)
    if settings.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{'whole' if finding.whole else 'NOT WHOLE'}: {finding.path}: {finding.note}")
    return EXIT_DONE if all(finding.whole for finding in findings) else EXIT_FAILED
