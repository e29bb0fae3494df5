"""What kill, fuzz and disk share: trials that a number repeats, a bar, a summary, a JSON result."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import sys
import time
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional

from tqdm import tqdm


class Failed(Exception):
    """A promise that a trial found broken; the text says how."""


class Trial(NamedTuple):
    """One trial. All that it does at random comes from `random`, which `kind`, seed and number decide."""

    kind: str
    number: int
    random: random.Random


def arguments(description: str, kinds: List[str], default_trials: int) -> argparse.ArgumentParser:
    """A parser with what all scripts take."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--trials", type=int, default=default_trials, help="trials of each kind (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides every trial (default %(default)s)")
    parser.add_argument("--kinds", default=",".join(kinds), help="of %(default)s")
    parser.add_argument("--only", type=int, help="repeat the one trial of this number")
    parser.add_argument("--minutes", type=float, help="start no trial after so many minutes")
    parser.add_argument("--json", help="file for the result")
    return parser


def planned(options: argparse.Namespace, known: List[str], by_kind: bool) -> Iterator[Trial]:
    """The trials that `options` ask for, all of one kind first or kinds in turn, up to --minutes."""
    kinds = options.kinds.split(",")
    unknown = sorted(set(kinds) - set(known))
    if unknown:
        sys.exit(f"--kinds {unknown[0]}: must be of {','.join(known)}")
    numbers = range(options.trials) if options.only is None else [options.only]
    order = [(kind, number) for kind in kinds for number in numbers]
    if not by_kind:
        order.sort(key=lambda each: each[1])
    started = time.monotonic()
    with tqdm(total=len(order), unit="trial", mininterval=1.0) as bar:
        for kind, number in order:
            if options.minutes is not None and time.monotonic() - started > 60 * options.minutes:
                return
            bar.set_description(kind, refresh=False)
            yield Trial(kind, number, random.Random(f"{options.seed}/{kind}/{number}"))
            bar.update()


def carry_out(
    script: str,
    options: argparse.Namespace,
    known: List[str],
    attempt: Callable[[Trial], Optional[str]],
    facts: Optional[Dict[str, object]] = None,
    by_kind: bool = False,
) -> int:
    """Makes all trials and reports them; the exit code is 1 if one failed.

    Args:
        attempt: makes one; returns a word for what happened (outcomes are counted), raises Failed.
        by_kind: all trials of one kind first; otherwise kinds in turn.
        facts: filled by `attempt` with what else the result shall tell.
    """
    done: Dict[str, int] = {}
    outcomes: Dict[str, Dict[str, int]] = {}
    failures: List[Dict[str, object]] = []
    started = time.monotonic()
    with contextlib.suppress(KeyboardInterrupt):
        for trial in planned(options, known, by_kind):
            try:
                outcome = attempt(trial) or "right"
            except Failed as error:
                outcome = "failed"
                failures.append({"kind": trial.kind, "number": trial.number, "reason": str(error)})
                repeat = (
                    f"python -m tests.endurance.{script} --kinds {trial.kind} --seed {options.seed} --only"
                )
                tqdm.write(f"FAILED {trial.kind} {trial.number}: {error}\n  again: {repeat} {trial.number}")
            done[trial.kind] = done.get(trial.kind, 0) + 1
            counted = outcomes.setdefault(trial.kind, {})
            counted[outcome] = counted.get(outcome, 0) + 1
    for kind, counted in outcomes.items():
        print(
            f"{kind:<16} {done[kind]:>6}  {', '.join(f'{n} {word}' for word, n in sorted(counted.items()))}"
        )
    print(f"{sum(done.values())} trials, {len(failures)} failures, {time.monotonic() - started:.0f} s")
    if options.json:
        cores = len(os.sched_getaffinity(0))
        result = {
            "script": script,
            "seed": options.seed,
            "trials": done,
            "outcomes": outcomes,
            "failures": failures,
            "facts": facts or {},
            "seconds": round(time.monotonic() - started, 1),
            "machine": f"{platform.machine()}, {cores} cores, Python {platform.python_version()}",
        }
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
    return 1 if failures else 0
