"""How many iterations an NPU runs by itself, chosen so that a run's chunks fit; no TensorFlow."""

from __future__ import annotations

from collections import Counter

from densenet_keras import schedule
from densenet_keras.schedule import LoopPlan, RunPlan


def choose(plan: RunPlan, first_step: int) -> LoopPlan:
    """The loop length for the rest of a run, at most `plan.iterations_per_loop`."""
    lengths = Counter(end - start for start, end in plan.chunks(first_step))
    return schedule.fit_loop(lengths, plan.iterations_per_loop)


def changes_of_graph(plan: RunPlan) -> int:
    """How often a run goes from one to another of its graphs: loop, single steps, evaluation."""
    length = choose(plan, 0).length
    running, changes = "", 0
    for start, end in plan.chunks(0):
        loops, singles = divmod(end - start, length)
        for graph, runs in (("loop", loops), ("steps", singles), ("evaluation", plan.evaluates_at(end))):
            if runs and graph != running:
                running, changes = graph, changes + 1
    return changes - 1


def explain(chosen: LoopPlan, plan: RunPlan) -> str:
    """One line for the log: what was chosen, and what would make all chunks fit."""
    longest = plan.iterations_per_loop
    text = f"loop length {chosen.length}: {chosen.loops} loops"
    if chosen.single_steps:
        text += f" and {chosen.single_steps} single steps, for which a second graph is compiled"
    if chosen.length == longest and not chosen.single_steps:
        return text
    intervals = {
        "--save_checkpoints_steps": plan.save_interval_steps,
        "--display_every": plan.log_interval_steps,
        "steps an epoch": plan.steps_per_epoch,
        "steps in all": plan.total_steps,
    }
    unfit = [f"{name} ({steps})" for name, steps in intervals.items() if steps % longest]
    return (
        f"{text}; every chunk is one loop if the length divides all intervals, which {longest} does not for "
        f"{', '.join(unfit) or 'the step to resume from'}{_proposal(plan)}"
    )


def _proposal(plan: RunPlan) -> str:
    """Settings that make chunks fit, if the steps of an epoch have a divisor that is worth it."""
    longest = plan.iterations_per_loop
    fitting = schedule.fit_loop({plan.steps_per_epoch: 1}, schedule.LONGEST_LOOP)
    lines_fit = plan.log_interval_steps % fitting.length == 0 or plan.log_interval_steps < fitting.length
    asked_fits = plan.steps_per_epoch % longest == 0 and plan.save_interval_steps % longest == 0
    if fitting.single_steps or asked_fits or not lines_fit:
        return ""
    return f"; --iterations_per_loop 0 --save_checkpoints_steps 0 would make it loops of {fitting.length}"
