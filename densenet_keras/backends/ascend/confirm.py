"""What only an Ascend device can confirm; docs/ascend.md lists the lines."""

from __future__ import annotations

import math
import os
import re
from typing import Any, Dict, List, Tuple

from densenet_keras.backends.ascend import graph_check, observation, rank_environment, work_folder
from densenet_keras.backends.confirm_lines import (
    LINES,
    LOOP_STEPS,
    STEPS,
    base,
    base_flags,
    rounds_rates,
    same_evaluation,
    whole_base,
)
from densenet_keras.backends.confirmation import (
    Backing,
    How,
    Line,
    Ran,
    Trials,
    Verdict,
    failed,
    judged,
    logs_of,
    not_tried,
)

# A rate that changes no float32 number of the size of a weight.
_STILL = 1e-30
_SMALLEST_CHANGE = 1e-20
_MIXED_PRECISION_LOSS = 0.02
_OVERFLOWING_SCALE = 1e30  # times a gradient of the first steps is beyond float16, and bfloat16 in sums
_SCALED_STEPS = 10
_HARMLESS_SCALE = 16
_RUNTIME_MB = 2048.0  # what driver, runtime and HCCL take of a device by themselves
_IN_USE_MB = 200


def kernels(trials: Trials) -> Verdict:
    """The graph check of a dry run, with the operator list that is installed here."""
    listed = graph_check.installed_operations(trials.environ.get("ASCEND_OPP_PATH", ""))
    if listed is None:
        return not_tried(f"no npu_supported_ops.json under ASCEND_OPP_PATH or {graph_check.DEFAULT_OPP_PATH}")
    planned = trials.plan("planned", base_flags(trials))
    if planned.code == 0:
        return judged(True, f"the device's list of {len(listed)} operations has all of the graph")
    missing = planned.output.partition("are in the way:")[2].partition("\n== ")[0].strip().splitlines()
    return failed(f"{planned.reason()} {'; '.join(missing[:3])}", nodes=missing)


def kind_is_recognised(trials: Trials) -> Verdict:
    """The kind of NPU that the dry run names, against npu-smi."""
    named = observation.kinds_here()
    if not named:
        return not_tried("npu-smi info names no NPU")
    planned = trials.plan("planned", base_flags(trials))
    here = observation.kind(named)
    said = _said(planned, "NPU: ")
    return judged(here.title in said, f"npu-smi: {', '.join(named)}; {said or planned.reason()}")


def compiles_in_own_folders(trials: Trials) -> Verdict:
    """Each rank's files of compilation, in a folder of its own."""
    ran = whole_base(trials)
    if trials.environ.get(work_folder.VARIABLE):
        return not_tried(f"{work_folder.VARIABLE} is set and takes precedence")
    given = rank_environment.rank_environments(ran.settings, trials.environ)
    ranks = [int(added.get("RANK_ID", "0")) for added in given]
    counts = {rank: _files_in(work_folder.own_folder(ran.settings, rank)) for rank in ranks}
    return judged(
        all(counts.values()),
        ", ".join(f"rank {rank}: {count} files" for rank, count in counts.items()),
        folder=work_folder.own_folder(ran.settings, ranks[0]),
    )


def _files_in(folder: str) -> int:
    return sum(len(names) for _, _, names in os.walk(folder)) if folder else 0


def loop_is_built(trials: Trials) -> Verdict:
    """Saves at the ends of two loops check the global step: it is there only if one run made ten steps."""
    ran = base(trials)
    if rounds_rates(ran):
        return not_tried(f"rounded rates ended the run before: {ran.reason()}")
    evidence: Dict[str, Any] = {
        "log_lines": observation.logged(ran.folder, "Insert op success"),
        "plan": _said(ran, "loop length"),
    }
    length = re.search(r"loop length (\d+)", ran.output)
    if length and int(length.group(1)) < 2:
        return not_tried(f"the run was planned without loops: {evidence['plan']}")
    if not ran.has_checkpoint(2 * LOOP_STEPS):
        return failed(f"no checkpoint of step {2 * LOOP_STEPS} after two loops: {ran.reason()}", **evidence)
    return judged(
        True, f"two session.runs made {2 * LOOP_STEPS} steps, by the device's own count", **evidence
    )


def both_halves(trials: Trials) -> Verdict:
    """Single steps after loops, in one run."""
    ran = base(trials)
    if not ran.has_checkpoint(2 * LOOP_STEPS):
        return not_tried("the loops before it were not saved, see loop")
    said = _said(ran, "loop length")
    if "single steps" not in said:
        return not_tried(f"the run was planned without single steps: {said}")
    whole = ran.has_checkpoint(STEPS)
    return judged(whole, f"{said.split(',')[0]}; step {STEPS} saved" if whole else ran.reason())


def _said(ran: Ran, words: str) -> str:
    return next((line for line in ran.output.splitlines() if words in line), "")


def checkpoints_both_ways(trials: Trials) -> Verdict:
    """The CPU evaluates and continues what the device saved; the device continues what the CPU saved."""
    from densenet_keras.checkpoints import comparison

    ran = whole_base(trials)
    saved = ran.checkpoint(STEPS)
    on_cpu = trials.evaluate("evaluated_on_cpu", saved, How(elsewhere=True))
    evaluated = same_evaluation(ran.evaluations[-1], on_cpu.evaluations[-1], _MIXED_PRECISION_LOSS)
    still = {"restore_exclude": "global_step", "lr": _STILL, "max_train_steps": 1, "mode": "train"}
    cpu = trials.train("read_on_cpu", {**still, "restore_path": saved}, How(elsewhere=True))
    back = trials.train("read_back", {**still, "restore_path": cpu.checkpoint(1)})
    there = comparison.distance(saved, cpu.checkpoint(1), _is_trained(saved))
    home = comparison.distance(saved, back.checkpoint(1), _is_trained(saved))
    evidence = {"to_cpu": there._asdict(), "and_back": home._asdict(), **evaluated.evidence}
    exact = max(there.largest, home.largest) <= _SMALLEST_CHANGE and there.compared > 0
    finding = (
        f"{there.compared} trained variables are the same on the CPU, and back on the device"
        if exact
        else f"{there.different} variables differ on the CPU, {home.different} back on the device, such as "
        f"{there.first or home.first}"
    )
    holds = exact and evaluated.verdict == "passed"
    return judged(holds, f"{finding}; evaluated on device and CPU: {evaluated.finding}", **evidence)


def _is_trained(checkpoint: str) -> Any:
    trained = set(_trained(checkpoint))
    return lambda name: name in trained


def _trained(checkpoint: str) -> List[str]:
    """Names of the variables with a slot of the optimizer, in the order of the alphabet."""
    from densenet_keras.checkpoints import reader

    ending = "/Momentum"
    with reader.reading(checkpoint) as opened:
        names = opened.get_variable_to_shape_map()
    return sorted(name[: -len(ending)] for name in names if name.endswith(ending))


def overflow_is_skipped(trials: Trials) -> Verdict:
    """All steps overflow, so none may change a weight, and all count; with a small scale none is skipped."""
    from densenet_keras.checkpoints import comparison

    half = _SCALED_STEPS // 2
    flags = {
        "loss_scale": _OVERFLOWING_SCALE,
        "max_skipped_steps": 100,
        "max_train_steps": _SCALED_STEPS,
        "iterations_per_loop": half,
        "save_checkpoints_steps": half,
        "mode": "train",
        "seed": 1,
    }
    ran = trials.train("overflowing", flags)
    skipped = [int(value) for value in logs_of(ran.lines, "skipped_steps")]
    first, last = ran.checkpoint(half), ran.checkpoint(_SCALED_STEPS)
    moved = comparison.distance(first, last, _is_trained(first))
    scaled = _scaled(trials)
    harmless = logs_of(scaled.lines, "skipped_steps")
    return judged(
        skipped[-1:] == [_SCALED_STEPS] and moved.is_zero and harmless[:1] == [0.0],
        f"loss scale {_OVERFLOWING_SCALE:g}: {skipped[-1] if skipped else 'no'} of {_SCALED_STEPS} steps "
        f"skipped, {moved.different} of {moved.compared} weights changed; {_HARMLESS_SCALE}: "
        f"{harmless[0] if harmless else math.nan:g} of the first steps skipped",
        skipped_steps=skipped,
        skipped_with_small_scale=harmless,
    )


def _scaled(trials: Trials) -> Ran:
    """Two epochs with a small loss scale, an evaluation after each."""
    flags = {
        "loss_scale": _HARMLESS_SCALE,
        "max_epochs": 2,
        "epochs_between_evals": 1,
        "iterations_per_loop": LOOP_STEPS,
        "lr": 0.01,
        "seed": 1,
    }
    return trials.train("scaled", flags)


def evaluation_leaves_no_overflow(trials: Trials) -> Verdict:
    """The steps skipped right after an evaluation."""
    ran = _scaled(trials)
    evaluated = ran.evaluations[0]["step"]
    before = [line["skipped_steps"] for line in ran.lines if line["step"] <= evaluated]
    after = [line["skipped_steps"] for line in ran.lines if line["step"] > evaluated]
    more = after[0] - before[-1]
    return judged(
        more == 0,
        f"{more:g} steps skipped right after the evaluation of step {evaluated}",
        skipped_before=before,
        skipped_after=after,
    )


def split_counts_gradients(trials: Trials) -> Verdict:
    """Two segments, the last index that of the last gradient: the device refuses another one."""
    ran = whole_base(trials)
    last = len(_trained(ran.checkpoint(STEPS))) - 1
    flags = {
        **base_flags(trials),
        "gradient_split": f"idx:{last // 2},{last}",
        "mode": "train",
        "max_train_steps": LOOP_STEPS,
    }
    split = trials.train("split", flags, How(may_fail=True, observed=True))
    lines = observation.logged(split.folder, "segment result")
    if split.code:
        return failed(f"{flags['gradient_split']} of {last + 1} gradients: {split.reason()}", log_lines=lines)
    return judged(True, f"{flags['gradient_split']} taken for {last + 1} gradients", log_lines=lines)


def memory_as_predicted(trials: Trials) -> Verdict:
    """What npu-smi showed during the run, against the dry run."""
    ran = whole_base(trials)
    used = _memory_used(ran)
    if not used:
        return not_tried("npu-smi info shows no use of memory")
    planned = trials.plan("planned", base_flags(trials))
    found = re.search(r"predicted memory of one device: ([\d.]+) GiB", planned.output)
    if not found:
        return failed(f"no prediction in the dry run: {planned.reason()}")
    predicted = float(found.group(1)) * 1024
    most = max(used.values())
    return judged(
        max(predicted / 2, _IN_USE_MB) <= most <= 2 * predicted + _RUNTIME_MB,
        f"{most:,} MB in use, {predicted:,.0f} MB predicted without workspace and runtime",
        used_mb=used,
        predicted_mb=predicted,
    )


def _memory_used(ran: Ran) -> Dict[str, int]:
    """Megabytes by device, the most beyond the least: a run before may not have given all back at once."""
    seen: Dict[str, List[int]] = {}
    for each in ran.samples:
        for device, value in each.items():
            seen.setdefault(device, []).append(value)
    return {device: max(values) - min(values) for device, values in seen.items()}


def devices_are_the_tables(trials: Trials) -> Verdict:
    """The chips whose memory a run takes, against those that it was given."""
    ran = base(trials)
    used = _memory_used(ran)
    if not used:
        return not_tried("npu-smi info shows no use of memory")
    given = rank_environment.rank_environments(ran.settings, trials.environ)
    wanted = sorted(_device(trials, added) for added in given)
    busy = sorted(device for device, value in used.items() if value >= _IN_USE_MB)
    return judged(
        busy == wanted,
        f"ranks were given devices {_listed(wanted)}; in use were {_listed(busy)}",
        used_mb=used,
    )


def _device(trials: Trials, added: Dict[str, str]) -> str:
    return added.get("DEVICE_ID", trials.environ.get("DEVICE_ID", "0"))


def _listed(devices: List[str]) -> str:
    return ", ".join(devices) or "none"


def lines() -> Tuple[Line, ...]:
    """All that can be confirmed here, what others build on first."""
    own = LINES
    return (
        Line("kernels", "the device has a kernel for every operation", kernels, runs=1),
        Line("loop", "the loop is built: one session.run makes many steps", loop_is_built, runs=1),
        Line("halves", "a chunk that a loop does not divide ends with single steps", both_halves),
        own["rates"],
        own["compile"],
        Line("npu", "the kind of NPU is recognised", kind_is_recognised),
        Line("folders", "each rank compiles in a folder of its own", compiles_in_own_folders),
        Line("devices", "ranks run on the devices that they were given", devices_are_the_tables),
        Line("memory", "the predicted memory is that of the device", memory_as_predicted),
        own["ranks"],
        own["steps"],
        own["evaluation"],
        own["stop"],
        Line("checkpoints", "checkpoints go both ways between device and CPU", checkpoints_both_ways, runs=3),
        Line("overflow", "overflow is seen and its step skipped", overflow_is_skipped, runs=2),
        Line("evaluation_overflow", "an evaluation leaves no overflow behind", evaluation_leaves_no_overflow),
        Line("split", "indices of --gradient_split count gradients alone", split_counts_gradients, runs=1,
             least_ranks=2),
        own["statistics"],
        own["speed"],
    )  # fmt: skip


BACKING = Backing(lines(), observation.sample, observation.machine, observation.environment)
