"""What a user should hear of settings that can run and hardly do what was meant; without TensorFlow."""

from __future__ import annotations

from typing import List

from densenet_keras import backends, schedule
from densenet_keras.schedule import RunPlan
from densenet_keras.settings.config import TRAIN, Config, fields
from densenet_keras.settings.rules import counted
from densenet_keras.topology import available_cores

# A rate of 0.1 for 256 images, in proportion for others: https://arxiv.org/abs/1706.02677, section 2.1.
REFERENCE_RATE, REFERENCE_BATCH = 0.1, 256
RATE_TOLERANCE = 2.0  # as a factor; closer ones are a matter of taste


def notes(config: Config, plan: RunPlan, first_step: int) -> List[str]:
    """A sentence for each, with the flag to give; empty if there is nothing to say."""
    return [*_unused(config), *_schedule(config, plan, first_step), *_rate(config, plan), *_cores(config)]


def choice_of_backend(config: Config) -> str:
    """Why no backend that --backend auto would prefer is used; empty if there is none."""
    reasons = [
        f"--backend {name} cannot be used: {reason}"
        for name, reason in backends.why_not(config.device.backend).items()
        if reason
    ]
    return "; ".join(reasons)


def _unused(config: Config) -> List[str]:
    """Flags that were given and do nothing beside the others."""
    run, said = config.run, []
    if run.max_epochs is not None and run.max_train_steps != fields()["max_train_steps"].default:
        steps, epochs = run.max_train_steps, run.max_epochs
        said.append(f"--max_train_steps {steps} is not used: --max_epochs {epochs} takes precedence")
    if run.mode == "train":
        unused = ["--patience_evals"] if run.patience_evals is not None else []
        if run.keep_best and config.command == TRAIN:  # for fine-tuning it is the default
            unused.append("--keep_best")
        said += [f"{flag} has no effect: --mode train evaluates nothing" for flag in unused]
    return said


def _schedule(config: Config, plan: RunPlan, first_step: int) -> List[str]:
    optimizer, epochs = config.optimizer, config.run.max_epochs
    end = optimizer.T_max * plan.steps_per_epoch
    if first_step >= end:
        return [
            f"step {first_step} is behind --T_max {optimizer.T_max}, where the learning rate has come to "
            f"zero: more steps change next to nothing; give --T_max {_last_epoch(plan)}"
        ]
    if plan.total_steps > end:
        return [
            f"from epoch {optimizer.T_max} on (--T_max) the learning rate is zero, and training goes on to "
            f"epoch {plan.epoch(plan.total_steps):g}; give --T_max {_last_epoch(plan)}"
        ]
    if epochs is not None and epochs < optimizer.T_max:
        rate = schedule.learning_rate(
            plan.total_steps - 1,
            base=optimizer.lr,
            T_max=optimizer.T_max,
            steps_per_epoch=plan.steps_per_epoch,
            warmup_epochs=optimizer.warmup_epochs,
            per_step=optimizer.lr_update == "step",
        )
        return [
            f"training ends after {counted(epochs, 'epoch')} at a learning rate of {rate:.3g}: it comes to "
            f"zero only at --T_max {optimizer.T_max}; to end both together, give --T_max {epochs}"
        ]
    return []


def _last_epoch(plan: RunPlan) -> int:
    """The number of the epoch that training ends in, from 1."""
    return -(-plan.total_steps // plan.steps_per_epoch)


def _rate(config: Config, plan: RunPlan) -> List[str]:
    """Fine-tuning takes other rates, so only training from the start is looked at."""
    fitting = REFERENCE_RATE * plan.global_batch / REFERENCE_BATCH
    if config.command != TRAIN or config.run.restore_path:
        return []
    if fitting / RATE_TOLERANCE <= config.optimizer.lr <= fitting * RATE_TOLERANCE:
        return []
    return [
        f"--lr {config.optimizer.lr:g} does not fit a global batch of {counted(plan.global_batch, 'image')}: "
        f"{REFERENCE_RATE:g} belongs to {REFERENCE_BATCH}, in proportion --lr {fitting:.3g} to this one"
    ]


def _cores(config: Config) -> List[str]:
    ranks, cores = backends.host(config).local_ranks(config), available_cores()
    if ranks <= cores or config.device.dry_run:  # which may plan for another machine
        return []
    return [
        f"{ranks} ranks share {counted(cores, 'core')} of this machine and slow each other down; "
        f"--rank_size {cores} would be as fast"
    ]
