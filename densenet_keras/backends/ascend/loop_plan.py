"""How many iterations an NPU runs by itself, chosen so that a run's chunks fit; no TensorFlow."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from densenet_keras.schedule import RunPlan


@dataclass(frozen=True)
class LoopPlan:
    """Session runs of a whole training run.

    A chunk of n steps is n // length loops followed by n % length single steps. The single steps run
    the step's own operation, another graph without the loop: the loop's count is never changed.
    """

    length: int  # iterations in one loop; 1: no loop, every run is one step
    loops: int
    single_steps: int  # 0: the second graph is never compiled

    @property
    def session_runs(self) -> int:
        """How often the host is involved."""
        return self.loops + self.single_steps


def choose(plan: RunPlan, first_step: int) -> LoopPlan:
    """The loop length for the rest of a run, at most `plan.iterations_per_loop`.

    A length that divides every chunk needs no second graph, hence half the compilation; the longest
    such one is taken unless it needs more than twice the session runs of the best length.
    """
    lengths = Counter(end - start for start, end in plan.chunks(first_step))
    candidates = [_plan(lengths, length) for length in range(1, max(1, plan.iterations_per_loop) + 1)]
    best = min(candidates, key=lambda candidate: (candidate.session_runs, -candidate.length))
    dividing = max(
        (candidate for candidate in candidates if not candidate.single_steps),
        key=lambda candidate: candidate.length,
    )
    return dividing if dividing.session_runs <= 2 * best.session_runs else best


def explain(chosen: LoopPlan, plan: RunPlan) -> str:
    """One line for the log: what was chosen, and what would make all chunks fit."""
    asked = plan.iterations_per_loop
    text = f"loop length {chosen.length} (--iterations_per_loop {asked}): {chosen.loops} loops"
    if chosen.single_steps:
        text += f" and {chosen.single_steps} single steps, for which a second graph is compiled"
    if chosen.length == asked and not chosen.single_steps:
        return text
    intervals = {
        "--save_checkpoints_steps": plan.save_interval_steps,
        "--display_every": plan.log_interval_steps,
        "steps per epoch": plan.steps_per_epoch,
        "steps in all": plan.total_steps,
    }
    unfit = [f"{name} ({steps})" for name, steps in intervals.items() if steps % max(asked, 1)]
    return (
        f"{text}; every chunk is one loop if --iterations_per_loop divides all intervals, which {asked} does "
        f"not for {', '.join(unfit) or 'the step to resume from'}{_proposal(plan)}"
    )


def _proposal(plan: RunPlan) -> str:
    """Settings near those asked for that make chunks fit, if the steps of an epoch have a divisor there."""
    asked = plan.iterations_per_loop
    divisors = [n for n in range(2, 2 * asked + 1) if plan.steps_per_epoch % n == 0]
    if not divisors:
        return ""
    length = min(divisors, key=lambda n: (abs(n - asked), -n))
    save = max(1, round(plan.save_interval_steps / length)) * length
    return f"; such as --iterations_per_loop {length} --save_checkpoints_steps {save}"


def _plan(lengths: Counter, length: int) -> LoopPlan:
    loops = sum(number * (n // length) for n, number in lengths.items())
    if length == 1:
        return LoopPlan(1, loops, 0)
    singles = sum(number * (n % length) for n, number in lengths.items())
    return LoopPlan(length, loops, singles)
