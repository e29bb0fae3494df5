"""Known failures, recognised in a rank's log: what they come from and what to do.

One failure often leaves the messages of several behind, so the table is ordered from causes to
consequences, and the first entry that matches is the one to show. Within a stage, what a backend
knows of its own libraries comes before what can happen anywhere.
"""

from __future__ import annotations

import functools
import re
from typing import List, Optional, Tuple

from densenet_keras import backends
from densenet_keras.backends.host import CONSEQUENCES, DATA, RESOURCES, Failure, failure
from densenet_keras.data import records

_LEAST_EQUAL_LOSSES = 5

_GENERAL = (
    failure(
        RESOURCES,
        "disk",
        r"No space left on device|ENOSPC|Disk quota exceeded",
        "A disk is full. Free space in --log_dir, lower --keep_checkpoint_max, or choose another --log_dir; "
        "profiles, dumps and compiler caches (--profiling, --dump, --op_compiler_cache_dir) also fill disks.",
    ),
    failure(
        RESOURCES,
        "memory",
        r"ResourceExhausted|OOM when allocating|MemoryError|std::bad_alloc|Out of memory: Kill|"
        r"oom-kill|Cannot allocate memory",
        "Memory ran out. Lower --batch_size or --image_size; on a machine that several ranks share, lower "
        "--rank_size or --data_threads too.",
    ),
    failure(
        RESOURCES,
        "port in use",
        r"Address already in use|Could not start gRPC server",
        "A port that a rank must listen on is taken, mostly by a run that has not ended. End it, or choose "
        "other ports in TF_CONFIG if you set that yourself. On Ascend servers keep ports 60000 to 60015 free "
        "(sysctl -w net.ipv4.ip_local_reserved_ports=60000-60015).",
    ),
    failure(
        DATA,
        "damaged records",
        r"DataLossError|corrupted record|truncated record",
        "A TFRecord shard is damaged or was cut off while it was copied. Compare its size and checksum with "
        "the source and copy it again.",
    ),
    failure(
        DATA,
        "end of data",
        r"OutOfRangeError|End of sequence",
        "The input ended inside a loop of steps. Training data repeats and evaluation is padded to equal "
        "batches, so this points at a data folder that changed during the run, or at an input of your own "
        "without repeat().",
    ),
    failure(
        DATA,
        "not finite",
        r"loss is (nan|-?inf)|NanLossDuringTraining",
        "The loss is no longer a number. On a CPU or GPU lower --lr. On an NPU too, unless the same command "
        "trains on a CPU; then it is float16, which overflows: use "
        "--loss_scale dynamic, keep reductions and small epsilons in float32 by --modify_mixlist FILE (newer "
        "adapter), or compare with --precision_mode allow_fp32_to_fp16.",
    ),
    failure(
        CONSEQUENCES,
        "peer gone",
        r"UnavailableError|Socket closed|Connection reset by peer|GRPC error",
        "Another rank ended, so this one lost its connection. The log of the rank that failed first, in "
        "rank_logs/ of --log_dir, tells why.",
    ),
)

_SAME_LOSS = (
    "The loss was the same in every line of the log. If it is the logarithm of the number of classes, the "
    "weights are zero on the device: they were initialised on the host or in another session. Otherwise "
    "the same batch was repeated in each loop: the device must fetch the batches itself, from a tf.data "
    "iterator, and no --npu_option may switch that off."
)


@functools.lru_cache(maxsize=None)
def failures() -> Tuple[Failure, ...]:
    """All that are known, in the order in which they are looked for."""
    return tuple(sorted([*backends.known_failures(), *_GENERAL], key=lambda known: known.stage))


def diagnose(log_text: str) -> Optional[str]:
    """Cause and remedy of the failure that a rank's log shows; None if it shows no known one."""
    # Where the input runs on a thread of a library, the record is in the log alone.
    reason = records.named_in(log_text)
    if reason:
        return None if f"error: {reason}" in log_text else f"the input failed: {reason}"
    for known in failures():
        if known.pattern.search(log_text):
            return known.advice
    losses: List[str] = re.findall(r"^step: *\d+ .* loss: *(\S+)  total_loss:", log_text, re.MULTILINE)
    if len(losses) >= _LEAST_EQUAL_LOSSES and len(set(losses)) == 1:
        return _SAME_LOSS
    return None


# Errors as TensorFlow and the libraries below it write them, with or without a time in front.
# Not at the start of a line alone: the stacks of a process that dies are written beside its last words, and
# may leave half a line before them.
_ERROR_LINE = re.compile(
    r"(\d{4}-\S+ \S+ |\[\d{4}-\S+ )?([EF] \S+\.cc:\d+\]|\[ERROR\]|\b[EF][A-Z\d]\d{4}: ).*"
)
_HARMLESS = re.compile(r"cuda|stream_executor", re.IGNORECASE)


def first_error(log_text: str) -> str:
    """The first line that a native library logged as an error or worse; empty if there is none."""
    for line in log_text.split("\n"):
        found = _ERROR_LINE.search(line)
        if found and not _HARMLESS.search(line):
            return found.group().strip()
    return ""
