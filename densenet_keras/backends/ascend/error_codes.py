"""Failures that the Ascend libraries name by a code, from their own lists of messages (docs/ascend.md).

The first letters tell the library: EI collectives (HCCL), EE runtime, EL driver, EZ operators, E1 graph
engine, E3 kernels on the device's own CPUs, E4 operator compiler. Codes that end in 9999 are inner
errors: they say in which library, not why.
"""

from __future__ import annotations

from densenet_keras.backends.host import CONSEQUENCES, ENVIRONMENT, GRAPH, RESOURCES, failure

PLOG = (
    "The host's own logs are in rank_logs/npu_R/log of --log_dir, with older adapters in $HOME/ascend/log "
    "(still older: /var/log/npu/slog)"
)
_OTHER_RANKS = "See first which rank's log in rank_logs/ of --log_dir ends first, and why"

CODES = (
    failure(
        ENVIRONMENT,
        "environment variable",
        r"\bEI0001\b",
        "The collective library refuses an environment variable; the line with EI0001 names it and what it "
        "may be. Correct or unset it in the shell that starts the run: the launcher hands on what it finds.",
    ),
    failure(
        ENVIRONMENT,
        "library versions",
        r"\bEI0008\b",
        "Servers of the job have different versions of the collective libraries. Install the same CANN "
        "toolkit and tfplugin on all, or start all ranks in the same image.",
    ),
    failure(
        ENVIRONMENT,
        "link",
        r"\bEI0009\b",
        "A device could not set up its connection: mostly its link is down. On every server check, for each "
        "device N, hccn_tool -i N -link -g, hccn_tool -i N -optical -g and hccn_tool -i N -ip -g.",
    ),
    failure(
        ENVIRONMENT,
        "device to device",
        r"\bEI0010\b",
        "Devices of one server cannot reach each other's memory. Check them with npu-smi info -t health; "
        "with HCCL_INTRA_ROCE_ENABLE=1 they talk over their NICs instead, if those are connected.",
    ),
    failure(
        ENVIRONMENT,
        "transfer queue",
        r"tdt host init failed",
        "The queue that carries batches to the device did not open. The device number does not exist here, "
        "another process holds the device, or the driver is older than the toolkit: see npu-smi info, "
        "ASCEND_DEVICE_ID of the rank, and the versions. " + PLOG + ".",
    ),
    failure(
        ENVIRONMENT,
        "start of the device",
        r"initialize (ge|parser) failed|tsdopen failed",
        "The device did not start. Mostly the driver, the firmware and the toolkit do not belong together, "
        "the device is held by another process (npu-smi info), or ASCEND_OPP_PATH is unset (source "
        "set_env.sh). The reason stands above this line or in the host's logs. " + PLOG + ".",
    ),
    failure(
        GRAPH,
        "collective argument",
        r"\bEI0003\b",
        "A collective operation was built with a value that it does not take; the line with EI0003 names it. "
        "In code of your own sum float32 or int32 only and pass values, not variables; otherwise leave "
        "--gradient_split out.",
    ),
    failure(
        GRAPH,
        "operator compiler",
        r"\bE40021\b",
        "An operator did not compile; the line with E40021 names it, its reason follows. Keep it out of the "
        "graph or in another type (--modify_mixlist FILE with the newer adapter), and empty the folder of "
        "--op_compiler_cache_dir if the toolkit has changed since it was filled.",
    ),
    failure(
        RESOURCES,
        "driver memory",
        r"\bEL0004\b|halMemAlloc failed",
        "The driver could not allocate memory of the device. See npu-smi info for another process on it, end "
        "yours, or lower --batch_size.",
    ),
    failure(
        RESOURCES,
        "communication resources",
        r"\bEI0007\b",
        "The collective library ran out of streams, notifications or memory of the device. End other "
        "processes on it (npu-smi info), give --gradient_split fewer segments, or lower --batch_size.",
    ),
    failure(
        CONSEQUENCES,
        "copy between devices",
        r"\bEI0012\b",
        "A copy from or to another device failed: its process has ended, or their connection broke. "
        + _OTHER_RANKS
        + "; if all ended at once, check npu-smi info -t health.",
    ),
    failure(
        CONSEQUENCES,
        "network between devices",
        r"\bEI0013\b|error cqe",
        "The network between two devices, which the line with EI0013 names, failed, or the other's process "
        "has ended. " + _OTHER_RANKS + "; then check both with hccn_tool -i N -link -g and -ip -g.",
    ),
    failure(
        CONSEQUENCES,
        "device CPU kernel",
        r"\bE39999\b",
        "A kernel on the device's own CPUs failed; of this program that is mostly fetching the next batch, "
        "after the input has failed or was too slow. Look for its error above, and try --synthetic_data. "
        + PLOG
        + ".",
    ),
    failure(
        CONSEQUENCES,
        "inner error",
        r"\b(EE9999|EZ9999|E19999)\b",
        "An inner error of the runtime (EE9999), of an operator (EZ9999) or of the graph engine (E19999); "
        "the indented lines below it go from where it showed to its reason. Run with --dry_run, then with "
        "--synthetic_data, to part graph and input. " + PLOG + "; search there for the first ERROR.",
    ),
)
