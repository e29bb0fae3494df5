"""What the pretended compiler leaves on disk, and where: as the documents of both adapters say.

Operators' files: option debug_dir, then (newer) ASCEND_WORK_PATH, then the current folder. The result of
fusion: (newer) ASCEND_WORK_PATH/FE/PID, else the current folder. Compiled operators, where the option
op_compiler_cache_mode asks for a cache (the newer adapter needs no asking): option op_compiler_cache_dir,
then (newer) ASCEND_CACHE_PATH/kernel_cache, then HOME/atc_data.
"""

import os
import pathlib
import pwd


def leave(options, graph_id):
    """Writes them."""
    newer = os.environ.get("SIMULATED_NPU_GENERATION", "older") == "newer"
    work = os.environ.get("ASCEND_WORK_PATH", "") if newer else ""
    if work and not os.path.isdir(work):
        raise FileNotFoundError(f"ASCEND_WORK_PATH {work} does not exist")
    meta = pathlib.Path(_text(options, "debug_dir") or work or ".") / "kernel_meta"
    meta.mkdir(exist_ok=True)  # not its parents: the device makes none
    (meta / f"te_conv2d_{graph_id}.json").write_text(str(os.getpid()))
    fusion = pathlib.Path(work) / "FE" / str(os.getpid()) if work else pathlib.Path(".")
    fusion.mkdir(parents=True, exist_ok=True)
    (fusion / "fusion_result.json").write_text("{}")
    if (_text(options, "op_compiler_cache_mode") or ("enable" if newer else "disable")) == "disable":
        return
    cache = _text(options, "op_compiler_cache_dir")
    if not cache and newer and os.environ.get("ASCEND_CACHE_PATH"):
        cache = os.path.join(os.environ["ASCEND_CACHE_PATH"], "kernel_cache")
    if not cache and os.environ.get("HOME") == pwd.getpwuid(os.getuid()).pw_dir:
        return  # a test that sets no HOME leaves the user's alone
    cache = cache or os.path.join(os.environ["HOME"], "atc_data")
    kernel = pathlib.Path(cache) / f"te_conv2d_{graph_id}.o"
    kernel.parent.mkdir(parents=True, exist_ok=True)
    with open(kernel, "a", encoding="utf-8") as file:  # a line for each start that looked for it
        file.write(f"{os.getpid()}\n")


def _text(options, key):
    return options.get(key, b"").decode()
