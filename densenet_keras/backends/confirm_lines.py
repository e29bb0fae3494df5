"""Claims that any backend can be held to: what a run must do wherever its steps are made.

Runs are shared by name. `base` is a short training in loops whose last chunk is shorter than a loop, with
an evaluation at its end.
"""

from __future__ import annotations

import math
import re
import statistics
from typing import Any, Dict, List, Mapping, Optional

from densenet_keras import schedule
from densenet_keras.backends.confirmation import (
    PASSED,
    How,
    Line,
    Ran,
    RunFailed,
    Trials,
    Verdict,
    failed,
    judged,
    logs_of,
    not_tried,
    passed,
)
from densenet_keras.errors import EXIT_TERMINATED

LOOP_STEPS = 10
STEPS = 2 * LOOP_STEPS + 3  # two loops, and a rest that only single steps can make
WARMUP_STEPS = 6
TRAINS = "FPS:"  # what a run says when it has made its first steps

# Two runs of equal numbers in another order of summation part by less than this share of the way that the
# weights went; a batch more or less, or another rate, parts them by much more.
_SAME_TRAINING = 0.02
_RATE = 1e-6  # of a rate computed in float32
_ROUNDED = 1e-2  # bfloat16 is off by up to 4e-3, float16 by 5e-4
_SAME_LOSS = 1e-3


def base_flags(trials: Trials) -> Dict[str, Any]:
    """Of the run `base`: its rate climbs for a few steps and then follows the cosine to the epoch's end."""
    return {
        "max_train_steps": STEPS,
        "iterations_per_loop": LOOP_STEPS,
        "save_checkpoints_steps": LOOP_STEPS,
        "epochs_between_evals": 1,
        "seed": 1,
        "lr": 0.1,
        "lr_update": "step",
        "T_max": 1,
        "warmup_epochs": (WARMUP_STEPS + 0.5) / trials.steps_per_epoch,
    }


def base(trials: Trials) -> Ran:
    """The run that most lines read; may have failed."""
    return trials.train("base", base_flags(trials), How(may_fail=True, observed=True))


def whole_base(trials: Trials) -> Ran:
    """The same, of which all is needed.

    Raises:
        RunFailed: it did not reach its end.
    """
    ran = base(trials)
    if ran.code:
        raise RunFailed(ran)
    return ran


def rounds_rates(ran: Ran) -> bool:
    """Whether it ended because the device used another rate, near the schedule's.

    One that is far from it is the rate of another step: then the device does not count as the host does.
    """
    found = re.search(r"used learning rate (\S+), the schedule says (\S+);", ran.output)
    if not found:
        return False
    used, due = map(float, found.groups())
    return abs(used - due) <= _ROUNDED * due


def rates_in_float32(trials: Trials) -> Verdict:
    """Every log line's rate; the run itself checks that of each chunk's last step."""
    ran = base(trials)
    if rounds_rates(ran):
        return failed(f"the device rounds the rate: {ran.reason()}")
    whole_base(trials)
    flags, worst = ran.settings.optimizer, 0.0
    for line in ran.lines:
        due = schedule.learning_rate(
            int(line["step"]) - 1,
            base=flags.lr,
            T_max=flags.T_max,
            steps_per_epoch=trials.steps_per_epoch,
            warmup_epochs=flags.warmup_epochs,
            per_step=True,
        )
        worst = max(worst, abs(line["learning_rate"] - due) / flags.lr)
    return judged(
        worst <= _RATE,
        f"in {len(ran.lines)} log lines within {worst:.1e} of the base rate",
        largest_relative_difference=worst,
    )


def loops_equal_single_steps(trials: Trials) -> Verdict:
    """The same training, every step a session.run of its own."""
    ran = whole_base(trials)
    single = trials.train("single_steps", {**base_flags(trials), "iterations_per_loop": 1, "mode": "train"})
    return _same_training(trials, ran, single, _SAME_TRAINING)


def _same_training(trials: Trials, ran: Ran, other: Ran, tolerance: float) -> Verdict:
    """Whether both runs trained alike: to the bit, or within `tolerance`, or as two equal runs do."""
    from densenet_keras.checkpoints import comparison

    step = int(ran.lines[-1]["step"])
    first, second = ran.checkpoint(step), other.checkpoint(step)
    apart = comparison.distance(first, second)
    evidence: Dict[str, Any] = {"distance": apart._asdict(), "losses": _losses(ran, other)}
    if apart.is_zero:
        return passed(f"all {apart.compared} variables are equal bit for bit after {step} steps", **evidence)
    usual = base(trials).checkpoint(STEPS)
    way = comparison.distance(base(trials).checkpoint(LOOP_STEPS), usual).norm
    again = trials.train("base_again", {**base_flags(trials), "mode": "train"})
    noise = comparison.distance(usual, again.checkpoint(STEPS)).norm / way
    share = apart.norm / way
    evidence.update(share_of_the_way=share, share_between_equal_runs=noise)
    allowed = max(tolerance, 2 * noise if noise < 0.5 else 0.0)
    return judged(
        share <= allowed,
        f"{apart.different} of {apart.compared} variables differ, by {share:.2%} of the way that the weights "
        f"went in {STEPS - LOOP_STEPS} steps; two equal runs differ by {noise:.2%} of it",
        **evidence,
    )


def _losses(*runs: Ran) -> Dict[str, List[Any]]:
    return {ran.name: [[line["step"], line["loss"]] for line in ran.lines] for ran in runs}


def stops_and_goes_on(trials: Trials) -> Verdict:
    """SIGTERM after the first loop, then the same command to the end of a run that was not stopped."""
    whole = whole_base(trials)
    long = {**base_flags(trials), "max_train_steps": 1000 * LOOP_STEPS}
    stopped = trials.train("stopped", long, How(may_fail=True, stop_at=TRAINS))
    if stopped.code != EXIT_TERMINATED:
        return failed(f"SIGTERM led to exit code {stopped.code}: {stopped.reason()}")
    if not stopped.lines:
        return not_tried("it ended before its first steps")
    step = int(stopped.lines[-1]["step"])
    end = {**base_flags(trials), "max_train_steps": max(STEPS, step + LOOP_STEPS // 2)}
    if step >= STEPS:
        whole = trials.train("not_stopped", end)
    trials.train("continued", end, How(goes_on="stopped"))
    same = _same_training(trials, whole, stopped, 0.0)
    return same._replace(finding=f"stopped at step {step} and continued: {same.finding}")


def ranks_hold_the_same_weights(trials: Trials) -> Verdict:
    """Each rank's own weights after the last step, moving statistics included."""
    return _same_digests(whole_base(trials))


def _same_digests(ran: Ran) -> Verdict:
    """Whether all ranks of this host left the same checksum of every variable."""
    if not ran.digests:
        return not_tried("no rank of this host has left checksums of its weights")
    first, others = ran.digests[0]["variables"], ran.digests[1:]
    names = [name for name in first if any(each["variables"][name] != first[name] for each in others)]
    finding = f"{len(ran.digests)} ranks of this host hold equal weights"
    if names:
        finding = f"{len(names)} of {len(first)} variables differ between ranks, such as {names[0]}"
    return judged(not names, finding, crc32=[each["crc32"] for each in ran.digests])


def evaluation_alone(trials: Trials) -> Verdict:
    """The last checkpoint, against what the training that saved it found."""
    ran = whole_base(trials)
    alone = trials.evaluate("evaluated", ran.checkpoint(STEPS))
    return same_evaluation(ran.evaluations[-1], alone.evaluations[-1], _SAME_LOSS)


def same_evaluation(first: Mapping[str, Any], second: Mapping[str, Any], tolerance: float) -> Verdict:
    """Whether two evaluations agree: loss within `tolerance` of it, hits within a hundredth of the images."""
    images, loss = first["images"], first["loss"]
    hits = max(abs(first[top] - second[top]) for top in ("top1", "top5"))  # percentage points
    few = max(1.0, 100.0 / images)
    apart = (
        abs(second["loss"] - loss) / max(abs(loss), 1e-9) if None not in (loss, second["loss"]) else math.inf
    )
    holds = images == second["images"] and apart <= tolerance and hits <= few
    return judged(
        holds,
        f"loss {loss:.5g} and {second['loss']:.5g}, top-1 {first['top1']:.2f}% and {second['top1']:.2f}%, "
        f"{images} and {second['images']} images",
        relative_difference_of_loss=apart,
        evaluations=[dict(first), dict(second)],
    )


def compiles_in_time(trials: Trials) -> Verdict:
    """From the start of the command to its first log line, against the time-out of the first step."""
    ran = base(trials)
    limit = ran.settings.device.first_step_timeout_seconds
    if ran.first_line_seconds is None:
        return failed(f"no step within {ran.seconds:.0f} s; the limit is {limit} s: {ran.reason()}")
    seconds = ran.first_line_seconds
    return judged(
        seconds <= limit / 2,
        f"{seconds:.0f} s until the first log line; --first_step_timeout_seconds is {limit}",
        seconds=seconds,
    )


def speed_flags(trials: Trials, batch_size: int) -> Dict[str, Any]:
    """A run that is timed: random images, long loops, nothing saved before its end."""
    steps = trials.speed_steps
    return {
        "batch_size": batch_size,
        "synthetic_data": True,
        "mode": "train",
        "max_train_steps": steps,
        "iterations_per_loop": max(1, steps // 5),
        "save_checkpoints_steps": steps,
    }


def images_per_second(ran: Ran) -> float:
    """The median of its log lines."""
    found = logs_of(ran.lines, "images_per_second")
    return statistics.median(found) if found else math.nan


def speeds(trials: Trials) -> Verdict:
    """Images a second of all ranks at each batch size."""
    measured: Dict[str, Optional[float]] = {}
    refused = []
    for batch_size in trials.batch_sizes:
        ran = trials.train(f"speed_{batch_size}", speed_flags(trials, batch_size), How(may_fail=True))
        measured[str(batch_size)] = None if ran.code else images_per_second(ran)
        if ran.code:
            refused.append(f"batch {batch_size} failed: {ran.reason()}")
    told = [f"{speed:,.0f} at batch {size}" for size, speed in measured.items() if speed is not None]
    finding = f"images a second: {', '.join(told) or 'none'}"
    return judged(not refused, "; ".join([finding, *refused]), images_per_second=measured)


def cost_of_statistics(trials: Trials) -> Verdict:
    """Speed with both ways to average moving statistics; all ranks hold the same after either."""
    measured: Dict[str, float] = {}
    for when in ("step", "save"):
        flags = {**speed_flags(trials, trials.batch_sizes[0]), "statistics_average": when}
        ran = trials.train(f"statistics_{when}", flags, How(digested=True))
        same = _same_digests(ran)
        if same.verdict != PASSED:
            return same._replace(finding=f"--statistics_average {when}: {same.finding}")
        measured[when] = images_per_second(ran)
    return passed(
        f"images a second: {measured['step']:,.0f} with averages in every step, {measured['save']:,.0f} "
        f"before saves only, {measured['save'] / measured['step']:.3f} times as many",
        images_per_second=measured,
    )


LINES = {
    line.name: line
    for line in (
        Line("rates", "learning rates stay in float32", rates_in_float32),
        Line("ranks", "all ranks hold the same weights after the last step", ranks_hold_the_same_weights,
             least_ranks=2),
        Line("steps", "steps in one session.run are those of single session.runs", loops_equal_single_steps,
             runs=1),
        Line("evaluation", "evaluation alone gives what evaluation during training gave", evaluation_alone,
             runs=1),
        Line("stop", "a run that is stopped and continued ends as one that was not", stops_and_goes_on,
             runs=2),
        Line("compile", "the first graph compiles well within its time-out", compiles_in_time),
        Line("statistics", "what averaging statistics in every step costs", cost_of_statistics, runs=2,
             least_ranks=2),
        Line("speed", "images a second at each batch size", speeds, runs=4),
    )
}  # fmt: skip
