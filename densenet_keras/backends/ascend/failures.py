"""Known failures of the Ascend adapter and its libraries, from its documents (docs/ascend.md)."""

from __future__ import annotations

from densenet_keras.backends.ascend.error_codes import CODES, PLOG
from densenet_keras.backends.host import (
    CONSEQUENCES,
    DATA,
    ENVIRONMENT,
    GRAPH,
    RESOURCES,
    failure,
)

_TEXTS = (
    failure(
        ENVIRONMENT,
        "adapter not found",
        r"No module named 'npu|lib\w+\.so[.\d]*: cannot open shared object file",
        "Python does not find the Ascend software. Source the set_env.sh of the toolkit (or nnae) and of "
        "tfplugin in the shell that starts the run; inside a container, mount /usr/local/Ascend/driver "
        "(scripts/docker_start.sh does). On a machine without NPUs use --backend tensorflow.",
    ),
    failure(
        ENVIRONMENT,
        "device node",
        r"/dev/(davinci|devmm_svm|hisi_hdc)\S*.{0,60}(No such|[Pp]ermission denied)",
        "An NPU device node is missing or may not be opened. Check ls -l /dev/davinci*, that the user is in "
        "the group that owns them (HwHiAiUser), and pass them into the container "
        "(scripts/docker_start.sh does).",
    ),
    failure(
        ENVIRONMENT,
        "JOB_ID",
        r"'NoneType' object has no attribute '_rank_size'",
        "JOB_ID is empty, and the adapter needs it for more than one rank. The launcher sets it; for ranks "
        "that you start yourself export JOB_ID=densenet (letters, digits, - and _), the same on all.",
    ),
    failure(
        ENVIRONMENT,
        "rank table",
        r"hcom_bind_model failed|EI0004|EI0017|EI0014\b.*rank ?table",
        "The rank table does not fit: its file is missing, its contents are wrong, or RANK_ID is not in it. "
        "Leave --rank_table out so that the table is written from /etc/hccn.conf, or correct the file; "
        "every rule it breaks is reported at the start of the command. The same message appears when "
        "collective functions are called before the first graph has run.",
    ),
    failure(
        ENVIRONMENT,
        "too early",
        r"get rank id error|hcom\w*.{0,40}not.{0,12}init",
        "The collective library was asked before it was initialised, or RANK_TABLE_FILE is unset. Check "
        "that the ranks were started by this command, or that RANK_TABLE_FILE, RANK_ID and RANK_SIZE are "
        "set for each.",
    ),
    failure(
        ENVIRONMENT,
        "NIC address",
        r"ra rdev init failed|EI0014",
        "A device's NIC could not be opened: its device_ip in the rank table differs from the address that "
        "is configured, or the link is down. Compare with hccn_tool -i N -ip -g, check hccn_tool -i N -link "
        "-g, and leave --rank_table out so that the table follows /etc/hccn.conf.",
    ),
    failure(
        ENVIRONMENT,
        "previous job",
        r"EI0019|EI0020|bind.{0,40}\b16666\b|\b16666\b.{0,60}(in use|bind|fail)",
        "A port of the devices' network (16666) is taken: an earlier job still runs on them. See npu-smi "
        "info and ps for its processes, end those of yours, and start again.",
    ),
    failure(
        ENVIRONMENT,
        "already initialised",
        r"Ge has already initialized.*option",
        "An option that is fixed for the whole process (precision, profiling, dump, compiler cache, device) "
        "was set after the device had been initialised and has no effect. Give it as a flag of the command, "
        "and do not open a session of your own in --callbacks before the run.",
    ),
    failure(
        GRAPH,
        "one-shot iterator",
        r"iterator_per_loop only support 1 when using OneShotIterator",
        "A one-shot iterator is in the session, and the loop on the device cannot read from it; this aborts "
        "on evaluation data as well. Use an initializable iterator in code of your own, or "
        "--iterations_per_loop 1.",
    ),
    failure(
        GRAPH,
        "loop length",
        r"iterator_per_loop should be int",
        "The number of iterations reached the adapter as 0 or in a field of another type. Set it by "
        "--iterations_per_loop (1 or more) only, not by --npu_option.",
    ),
    failure(
        GRAPH,
        "placeholder",
        r"[Pp]laceholder.{0,20}not support",
        "The graph on the device contains a placeholder: something reads a fed value inside a step. Remove "
        "feeds and learning-phase placeholders from code of your own; --dry_run names the node.",
    ),
    failure(
        GRAPH,
        "uninitialised variable",
        r"Error while reading resource variable",
        "A variable has no value on the device: it was initialised together with an iterator, which keeps "
        "the whole run on the host, or in another session, or created after the initialisation. In code of "
        "your own create variables before the run starts and initialise iterators in a session.run of "
        "their own.",
    ),
    failure(
        GRAPH,
        "lookup table",
        r"Table not initialized",
        "A lookup table is used where the device cannot hold one. Keep tables out of the model and of input "
        "functions; map labels to numbers when the records are written.",
    ),
    failure(
        GRAPH,
        "outputs",
        r"[Oo]utputs? num mismatch",
        "A fetch was pruned or doubled, so the device returns another number of values than TensorFlow "
        "expects. Fetch each tensor once, and fetch nothing but what the run itself fetches.",
    ),
    failure(
        GRAPH,
        "memory optimizer",
        r"memory_optimizer\.cc",
        "TensorFlow's own memory optimizer crashed. This program sets it to NO_MEM_OPT; remove code or an "
        "option that sets memory_optimization to OFF, which in TensorFlow 1.15 means MANUAL.",
    ),
    failure(
        GRAPH,
        "unsupported operation",
        r"\bEZ3002\b|No supported (Ops kernel|op|engine)|unsupported op|op type .{0,60} (is )?not supported",
        "The device has no kernel for an operation of the graph. --dry_run lists such nodes; move the "
        "operation into the input pipeline or replace it. " + PLOG + ".",
    ),
    failure(
        RESOURCES,
        "control flow memory",
        r"memory.{0,80}(exceed|larger|more than|over).{0,40}3[01] ?G",
        "The graph needs more memory than the device has (31 GB). Many Switch and Merge nodes do that: a "
        "symbolic learning phase doubles every batch normalisation. --dry_run shows predicted memory and "
        "such nodes. Otherwise lower --batch_size.",
    ),
    failure(
        RESOURCES,
        "device memory",
        r"EI0011|\b207001\b|[Dd]evice.{0,30}out of memory|rtMalloc.{0,60}fail",
        "The device ran out of memory. Lower --batch_size, or, with the older adapter, give feature maps "
        "more of the 31 GB of a 910: "
        "--graph_memory_max_size 28*1024*1024*1024 --npu_option variable_memory_max_size=3*1024*1024*1024. "
        "npu-smi info shows whether another process holds memory of the device.",
    ),
    failure(
        DATA,
        "input too slow",
        r"E30008",
        "The device waited for the next batch for longer than it may: the input is too slow or has "
        "delivered nothing. Measure with --synthetic_data; if that runs, look at data_wait in the log, put "
        "the data on a faster disk, and give each rank more cores or a higher --data_threads.",
    ),
    failure(
        DATA,
        "loss scale",
        r"at loss scale (0?\.\d+|1):|loss_scale:(0?\.\d+|1)\b",
        "The loss scale fell to its smallest value because every step looked like an overflow. That is "
        "mostly one operator that saturates by itself, not the scale: find it with --overflow_debug DIR and "
        "keep it in float32 by --modify_mixlist FILE (the older adapter does not read it: there take "
        "--precision_mode allow_fp32_to_fp16), or train with --loss_scale none.",
    ),
    failure(
        DATA,
        "steps in the loop",
        r"would run one step at a time|[Gg]lobal.step.{0,60}(advanced|moved|instead)",
        "The loop on the device ran another number of steps than asked for. The loop's operation was "
        "renamed, its variables were initialised again after they had been loaded, a shape in the "
        "step is not static, or --npu_option changes the loop length. --dry_run checks the first and third.",
    ),
    failure(
        CONSEQUENCES,
        "unequal collectives",
        r"EI0005",
        "The ranks called a collective operation with different shapes, types or splits. Start every rank "
        "with the same version and the same flags (--gradient_split, --batch_size, --model).",
    ),
    failure(
        CONSEQUENCES,
        "connection time-out",
        r"EI0006|socket.{0,40}establish.{0,20}time ?out",
        "The ranks did not all reach the start of communication in time. One failed earlier (see its log "
        "first: rank_logs/ in --log_dir), they built different graphs, or some compiled for longer than "
        "HCCL_CONNECT_TIMEOUT: export a larger one, up to 7200, or keep compiled operators with "
        "--op_compiler_cache_dir.",
    ),
    failure(
        CONSEQUENCES,
        "notify time-out",
        r"EI0002|notify wait.{0,20}time ?out",
        "A rank stopped taking part: it failed, ran out of data or is far slower. Look at the log that ends "
        "first in rank_logs/ of --log_dir. If all are alive, raise HCCL_EXEC_TIMEOUT.",
    ),
)

_LAST = (
    failure(
        CONSEQUENCES,
        "graph failed",
        r"DoRunAsync.{0,12}failed|RunGraphAsync failed|add ?graph.{0,20}fail|GEOP.{0,80}(fail|error)",
        "The graph engine could not compile or run the graph; the reason stands earlier. " + PLOG + "; "
        "search there for the first ERROR, and run the command with --dry_run to check the graph.",
    ),
)

# Within a stage the first that matches is shown: what says least stands last.
FAILURES = (*_TEXTS, *CODES, *_LAST)
