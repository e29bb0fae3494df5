"""What fuzz spoils: each subject writes good files once, then spoils one and reads it as a command does."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import sys
import zipfile
from typing import Any, Callable, Dict, List, Optional
from unittest import mock

import numpy as np

from densenet_keras.backends.ascend import rank_table
from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.checkpoints import manifest
from densenet_keras.commands import main
from densenet_keras.data import record_index, records, tfrecord
from densenet_keras.data.record_reader import RecordReader
from densenet_keras.errors import RunError, UsageError
from densenet_keras.launch import launcher, rendezvous
from densenet_keras.launch.supervisor import Outcome
from densenet_keras.network.weights import source as weights
from densenet_keras.settings.config import Config
from densenet_keras.topology import Topology, adopt_rank_size
from tests.endurance import mutations
from tests.endurance.trials import Failed
from tests.support.records import encode, example, noise_payloads, write_noise, write_shard

# Variables that tell a process which rank it is, with values of a whole job.
RANK_VARIABLES = {
    "RANK_ID": "1", "RANK_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "PMI_RANK": "1", "PMI_SIZE": "2",
    "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2", "SLURM_PROCID": "1", "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2", "SLURM_LOCALID": "1", "SLURM_NODEID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "2(x1)", "SLURM_JOB_ID": "7", "HOROVOD_RANK": "1", "HOROVOD_SIZE": "2",
    "RANK": "1", "WORLD_SIZE": "2", "MV2_COMM_WORLD_RANK": "1", "MV2_COMM_WORLD_SIZE": "2",
    "DENSENET_KERAS_LOCAL_RANK": "1", "DENSENET_KERAS_LOCAL_SIZE": "2", "DENSENET_KERAS_PARENT": "1",
    "RANK_TABLE_FILE": "table.json", "DEVICE_ID": "1", "ASCEND_DEVICE_ID": "1", "XDG_CACHE_HOME": "cache",
}  # fmt: skip
TF_CONFIG = {
    "cluster": {"worker": ["127.0.0.1:50001", "127.0.0.1:50002"]},
    "task": {"type": "worker", "index": 1},
}
TABLE = {
    "version": "1.0", "server_count": "1", "status": "completed",
    "server_list": [
        {"server_id": "10.0.0.1", "device": [
            {"device_id": str(n), "device_ip": f"192.168.{n % 4}.{n // 4 + 1}", "rank_id": str(n)}
            for n in range(8)
        ]}
    ],
}  # fmt: skip
GROUPS = {
    "status": "completed", "group_count": "1",
    "group_list": [
        {"group_name": "job", "instance_count": "2", "device_count": "2", "instance_list": [
            {"pod_name": f"job-{n}", "server_id": "10.0.0.1", "devices": [
                {"device_id": str(n), "device_ip": f"192.168.{n}.1"}
            ]} for n in range(2)
        ]}
    ],
}  # fmt: skip
TINY = ["--model", "densenet_tiny", "--num_classes", "10", "--batch_size", "4"]


def command(argv: List[str], environ: Optional[Dict[str, str]] = None) -> Optional[str]:
    """Runs `python -m densenet_keras` with `argv` in this process, all but the ranks; a word for its end.

    Raises:
        Failed: the exit code is none of a command's, or something was raised.
    """
    clean = {name: value for name, value in os.environ.items() if name not in RANK_VARIABLES}
    clean.pop("TF_CONFIG", None)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.dict(os.environ, {**clean, **(environ or {})}, clear=True))
            stack.enter_context(mock.patch.object(launcher, "supervise", return_value=Outcome()))
            stack.enter_context(mock.patch("densenet_keras.commands.worker.run_configuration", _rank_begins))
            code = main.run_command(argv)
    except SystemExit as stopped:
        code = stopped.code or 0  # after --help
    if code not in (0, 1, 2):
        raise Failed(f"exit code {code} of {argv}")
    return "accepted" if code == 0 else "refused"


def _rank_begins(config: Config) -> int:
    """What a rank started by others does before TensorFlow: it finds its place."""
    from densenet_keras import backends

    config = adopt_rank_size(config, os.environ)
    added = backends.host(config).complete_environment(config, os.environ)
    Topology.from_environment({**os.environ, **added}, config)
    rendezvous.job_key(os.environ)
    return 0


def put(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)


def get(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


class Subject:
    """One kind of input.

    Args:
        folder: for its files alone.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.prepare()

    def at(self, *names: str) -> str:
        return os.path.join(self.folder, *names)

    def prepare(self) -> None:
        """Writes what is spoiled later."""

    def attempt(self, chance: random.Random) -> Optional[str]:
        """Spoils and reads; UsageError, RunError and BadRecord are right, Failed and all else are not."""
        raise NotImplementedError


class Records(Subject):
    """Bytes of a shard, before or after its index was built: no payload but the original ones comes out."""

    def prepare(self) -> None:
        self.payloads = noise_payloads(12, size=(12, 12))
        self.known = set(self.payloads)
        write_shard(self.at("whole"), self.payloads)
        self.whole = get(self.at("whole"))
        self.path = self.at("train-00000-of-00001")

    def attempt(self, chance: random.Random) -> Optional[str]:
        shutil.rmtree(self.at(record_index.FOLDER), ignore_errors=True)
        late = chance.random() < 0.3
        spoiled = mutations.spoiled_bytes(chance, self.whole)
        put(self.path, self.whole if late else spoiled)
        policy = records.Policy(chance.choice((0.0, 0.2, 0.9)))
        cache = {"XDG_CACHE_HOME": self.at("cache")}
        split = records.open_split(self.folder, "train", environ=cache, policy=policy)
        if late:
            put(self.path, spoiled)
        with contextlib.closing(RecordReader(split)) as reader:
            for payload in reader.payloads(split.good):
                if payload not in self.known:
                    raise Failed("a damaged record was taken for a whole one")
        return "read"


class Examples(Subject):
    """Contents of records under a right checksum, as other programs may have written them."""

    def prepare(self) -> None:
        self.payload = noise_payloads(1, size=(12, 12))[0]
        self.path = self.at("train-00000-of-00001")

    def attempt(self, chance: random.Random) -> Optional[str]:
        shutil.rmtree(self.at(record_index.FOLDER), ignore_errors=True)
        spoiled = self._spoiled(chance)
        put(self.path, tfrecord.frame(self.payload) + tfrecord.frame(spoiled) + tfrecord.frame(self.payload))
        split = records.open_split(self.folder, "train", environ={"XDG_CACHE_HOME": self.at("cache")})
        records.check_labels(split, 1, 10)
        with contextlib.closing(RecordReader(split)) as reader:
            reader.images(np.arange(len(split)))
        return "read"

    def _spoiled(self, chance: random.Random) -> bytes:
        if chance.random() < 0.6:
            return mutations.spoiled_bytes(chance, self.payload)
        word = mutations.word(chance).encode("utf-8", "surrogatepass")
        picture = chance.choice((b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", word))
        label = chance.choice((0, -1, 5, 2**31, 2**63 - 1, -(2**63), 0.5, "cat"))
        return example(picture, label, **{"image/height": chance.choice((0, -1, 2**40)), "x": b"\xff" * 20})


class Index(Subject):
    """The cached index: whatever stands there, the records of the shards come out, or an error."""

    def prepare(self) -> None:
        write_noise(self.folder, train=30, validation=1, shards=3, size=(12, 12))
        self.split = self._open()
        self.path = self.at(record_index.FOLDER, "train.npz")
        self.whole = get(self.path)

    def _open(self) -> records.Split:
        return records.open_split(self.folder, "train", environ={"XDG_CACHE_HOME": self.at("cache")})

    def attempt(self, chance: random.Random) -> Optional[str]:
        if chance.random() < 0.6:
            put(self.path, mutations.spoiled_bytes(chance, self.whole))
        else:
            put(self.path, self._replaced(chance))
        split = self._open()
        for column in record_index.COLUMNS:
            if not np.array_equal(getattr(split, column), getattr(self.split, column)):
                raise Failed(f"the column {column} is another than that of the shards")
        return "right"

    def _replaced(self, chance: random.Random) -> bytes:
        """A well-formed archive with another array in it, or one that unpacks to gigabytes."""
        with np.load(io.BytesIO(self.whole)) as stored:
            columns = {name: stored[name] for name in stored.files}
        name = chance.choice(sorted(columns))
        out = io.BytesIO()
        kind = chance.randrange(6)
        if kind == 0:
            with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
                for each, values in columns.items():
                    head = io.BytesIO()
                    count = 2**28 if each == name else len(values)
                    described = {"descr": np.lib.format.dtype_to_descr(values.dtype), "fortran_order": False}
                    np.lib.format.write_array_header_1_0(head, {**described, "shape": (count,)})
                    body = b"\0" * 2**20 if each == name else values.tobytes()
                    archive.writestr(each + ".npy", head.getvalue() + body)
            return out.getvalue()
        values = columns[name]
        changed = [
            values[:-1], values.astype(np.float32), values.reshape(-1, 1), np.zeros(0, values.dtype),
            np.array(["x"] * len(values)),
        ]  # fmt: skip
        columns[name] = changed[kind - 1]
        np.savez(out, **columns)
        return out.getvalue()


class RankTable(Subject):
    """Rank tables of both forms, given to a command that asks for NPUs."""

    def attempt(self, chance: random.Random) -> Optional[str]:
        put(self.at("table.json"), mutations.spoiled_json(chance, chance.choice((TABLE, GROUPS))))
        table = rank_table.load(self.at("table.json"))
        table.check(chance.choice((1, 2, 8, 16)))
        return "accepted"


class HccnConf(Subject):
    """NIC configurations, of which rank tables are made."""

    def prepare(self) -> None:
        lines = [f"address_{n}=192.168.{n % 4}.{n // 4 + 1}\nnetmask_{n}=255.255.255.0\n" for n in range(8)]
        self.text = "".join(lines)

    def attempt(self, chance: random.Random) -> Optional[str]:
        put(self.at("1.conf"), mutations.spoiled_text(chance, self.text))
        put(self.at("2.conf"), self.text.replace("192.168", "192.169").encode())
        given = [f"10.0.0.1={self.at('1.conf')}", f"10.0.0.2={self.at('2.conf')}"]
        return command(["rank_table", self.at("table.json"), *given])


class RunJson(Subject):
    """The run.json of a run that is continued, evaluated, fine-tuned or given with --config."""

    def prepare(self) -> None:
        write_noise(self.at("data"), train=8, validation=4, shards=1, size=(12, 12))
        changes = {"model": "densenet_tiny", "num_classes": 10, "batch_size": 4, "data_dir": self.at("data")}
        self.values = Config().replace(**changes).to_json()
        os.makedirs(self.at("run"))
        for ending in (".index", ".data-00000-of-00001"):
            put(self.at("run", "model.ckpt-7" + ending), b"")

    def attempt(self, chance: random.Random) -> Optional[str]:
        put(self.at("run", "run.json"), mutations.spoiled_json(chance, self.values))
        data = ["--data_dir", self.at("data")]
        how = chance.randrange(4)
        if how == 0:
            return command(["train", *TINY, *data, "--log_dir", self.at("run")])
        if how == 1:
            return command(["evaluate", "--eval_dir", self.at("run"), *data, "--log_dir", self.at("out")])
        if how == 2:
            tuned = ["--log_dir", self.at("out"), "--batch_size", "4"]
            return command(["finetune", "--restore", self.at("run"), *data, *tuned])
        return command(["train", "--config", self.at("run", "run.json"), *data, "--log_dir", self.at("out")])


class Metrics(Subject):
    """The metrics.jsonl of a run that is continued."""

    def prepare(self) -> None:
        line = {"step": 4, "epoch": 1.0, "loss": 2.1, "total_loss": 2.2, "learning_rate": 0.1}
        found = {
            "step": 6,
            "epoch": 2.0,
            "top1": 50.0,
            "top5": 90.0,
            "loss": 2.0,
            "images": 16,
            "seconds": 0.2,
        }
        self.lines = [line, found, {**line, "step": 8}, {**found, "step": 10}]

    def attempt(self, chance: random.Random) -> Optional[str]:
        from densenet_keras.training.callbacks import metrics
        from densenet_keras.training.callbacks.best import KeepBest

        lines = [json.dumps(values).encode() for values in self.lines]
        at = chance.randrange(len(lines))
        lines[at] = mutations.spoiled_json(chance, self.lines[at])
        content = b"\n".join(lines) + b"\n"
        if chance.random() < 0.3:
            content = mutations.spoiled_bytes(chance, content)
        put(self.at(metrics.FILE_NAME), content)
        metrics.holds_evaluation(self.folder, 6)
        metrics.top1_by_step(self.folder)
        metrics.Metrics(self.folder, 8).close()
        KeepBest(self.folder, 8, keeps=False, patience_evals=3, say=print)
        return "read"


class Labels(Subject):
    """labels.txt of a data set."""

    def prepare(self) -> None:
        write_noise(self.at("data"), train=10, validation=4, shards=1, size=(12, 12))
        self.text = "".join(f"{n}:class {n}\n" for n in range(1, 11))

    def attempt(self, chance: random.Random) -> Optional[str]:
        put(self.at("data", "labels.txt"), mutations.spoiled_text(chance, self.text))
        given = ["--restore", self.at("none"), "--data_dir", self.at("data"), "--log_dir", self.at("out")]
        if chance.random() < 0.5:
            return command(["finetune", *given])
        from densenet_keras.data import classes

        split = records.open_split(self.at("data"), "train")
        classes.find(self.at("data"), 1, [split])
        return "read"


class Rendezvous(Subject):
    """Files by which ranks of a scheduler meet."""

    def attempt(self, chance: random.Random) -> Optional[str]:
        rank = chance.randrange(2)
        meeting = rendezvous.Meeting(self.folder, "job", rank, 2)
        with contextlib.closing(meeting):
            me = dict(meeting._me)
            other = {**me, "token": "other", "accepted": ""}
            folder = self.at(rendezvous.FOLDER, "job")
            roster = {"nonce": "n", "final": True, "members": [other, me] if rank else [me, other]}
            put(os.path.join(folder, "rank_1.json"), mutations.spoiled_json(chance, other))
            put(os.path.join(folder, rendezvous.ROSTER), mutations.spoiled_json(chance, roster))
            addresses = meeting.addresses(0.0)
        if len(addresses) != 2 or not all(isinstance(each, str) and ":" in each for each in addresses):
            raise Failed(f"{addresses} are no addresses of two ranks")
        return "met"


class Environment(Subject):
    """TF_CONFIG, RANK_ID and the variables of schedulers."""

    def attempt(self, chance: random.Random) -> Optional[str]:
        environ: Dict[str, str] = {}
        if chance.random() < 0.5:
            text = mutations.spoiled_json(chance, TF_CONFIG).decode("utf-8", "surrogateescape")
            environ["TF_CONFIG"] = text[:100_000].replace("\0", "")  # the kernel takes 128 KB and no zeros
        for name in chance.sample(sorted(RANK_VARIABLES), chance.randrange(6)):
            value = RANK_VARIABLES[name] if chance.random() < 0.5 else mutations.word(chance)
            environ[name] = (
                value.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape").replace("\0", "")
            )
        argv = ["train", *TINY, "--synthetic_data", "--log_dir", self.at("run")]
        return command(argv + chance.choice(([], ["--rank_size", "2"], ["--backend", "tensorflow"])), environ)


class Flags(Subject):
    """Command lines of every command."""

    def prepare(self) -> None:
        from densenet_keras.settings import programs

        write_noise(self.at("data"), train=8, validation=4, shards=1, size=(12, 12))
        self.flags: Dict[str, List[str]] = {
            name: [f"--{flag}" for flag in programs.program(name).settings if flag != "dry_run"]
            for name in programs.SCRIPTS
        }
        for name in ("rank_table", "completion", "check", "prepare", "predict"):
            self.flags[name] = [
                "--data_dir",
                "--log_dir",
                "--json",
                "--csv",
                "--top_k",
                "--seed",
                "--nothing",
            ]

    def attempt(self, chance: random.Random) -> Optional[str]:
        name = chance.choice(sorted(self.flags))
        argv = [name]
        if name in ("train", "finetune"):
            argv += [*TINY, "--log_dir", self.at("run"), "--data_dir", self.at("data")]
        for _ in range(chance.choice((1, 1, 2, 3, 5))):
            flag = chance.choice(self.flags[name])
            plausible = str(
                chance.choice((1, 2, 0.5, "true", "none", self.at("data"), self.at("run"), "auto"))
            )
            value = (
                chance.choice((mutations.word(chance), plausible))
                .encode("utf-8", "surrogatepass")
                .decode("utf-8", "surrogateescape")
            )
            value = value.replace("\0", "")
            argv += chance.choice(
                ([flag, value], [f"{flag}={value}"], [flag], [value], [flag.replace("_", "-"), value])
            )
        return command(argv)


class Csv(Subject):
    """The CSV file of `prepare`."""

    def prepare(self) -> None:
        names = [f"{label}{number}.jpg" for label in "ab" for number in range(4)]
        chance = np.random.RandomState(0)
        for name in names:
            put(self.at(name), encode(chance.randint(0, 256, (12, 12, 3), np.uint8)))
        self.text = "path,label,split\n" + "".join(f"{name},{name[0]},train\n" for name in names)

    def attempt(self, chance: random.Random) -> Optional[str]:
        from densenet_keras.data.prepare import table

        put(self.at("table.csv"), mutations.spoiled_text(chance, self.text))
        table.list_table(self.at("table.csv"))
        return "read"


class Weights(Subject):
    """Files of weights as other programs write them: .npz, .h5, .safetensors, MindSpore's .ckpt."""

    def prepare(self) -> None:
        from tests.support import foreign, networks

        run = networks.write_run(self.at("run"), num_classes=10)
        opened = weights.open_source(os.path.join(run, "model.ckpt-7"))
        arrays = {name: opened.tensors.read(name) for name in opened.places}
        np.savez(self.at("whole.npz"), **arrays)
        foreign.write_safetensors(self.at("whole.safetensors"), arrays, metadata={"a": "b"})
        foreign.write_mindspore(self.at("whole.ckpt"), arrays, crc=False)
        foreign.write_mindspore(self.at("crc.ckpt"), arrays, crc=True)
        self._write_h5(run, self.at("whole.h5"))
        self.files = ["whole.npz", "whole.safetensors", "whole.ckpt", "crc.ckpt", "whole.h5"]

    @staticmethod
    def _write_h5(run: str, path: str) -> None:
        from densenet_keras.checkpoints.model import load_model

        load_model(run).save(path)

    def attempt(self, chance: random.Random) -> Optional[str]:
        name = chance.choice(self.files)
        path = self.at("spoiled" + os.path.splitext(name)[1])
        whole = get(self.at(name))
        put(path, self._spoiled_header(chance, whole) if name.endswith("safetensors") else b"")
        if not os.path.getsize(path):
            put(path, mutations.spoiled_bytes(chance, whole))
        opened = weights.open_source(path)
        weights.network_settings(opened)
        for each in opened.places:
            opened.value(each)
        return "read"

    @staticmethod
    def _spoiled_header(chance: random.Random, whole: bytes) -> bytes:
        """Another header before the same arrays; empty for other damage."""
        if chance.random() < 0.5:
            return b""
        length = int.from_bytes(whole[:8], "little")
        header = mutations.spoiled_json(chance, json.loads(whole[8 : 8 + length].decode()))
        return len(header).to_bytes(8, "little") + header + whole[8 + length :]


class KerasDescription(Subject):
    """The description of a model inside a .h5 file."""

    def prepare(self) -> None:
        import h5py

        from densenet_keras.checkpoints.model import load_model
        from tests.support import networks

        run = networks.write_run(self.at("run"), num_classes=10)
        load_model(run).save(self.at("whole.h5"))
        with h5py.File(self.at("whole.h5"), "r") as file:
            self.described = json.loads(file.attrs["model_config"])
        self.whole = get(self.at("whole.h5"))

    def attempt(self, chance: random.Random) -> Optional[str]:
        import h5py

        put(self.at("spoiled.h5"), self.whole)
        with h5py.File(self.at("spoiled.h5"), "r+") as file:
            if chance.random() < 0.7:
                file.attrs["model_config"] = np.void(mutations.spoiled_json(chance, self.described)[:60000])
            else:
                group = chance.choice(
                    (file["model_weights"], chance.choice(list(file["model_weights"].values())))
                )
                name = chance.choice(sorted(group.attrs)) if len(group.attrs) else "layer_names"
                value: Any = chance.choice((b"x", 7, np.array([b"a", b"\xff\xfe"]), np.zeros(3), [b"a/b:0"]))
                group.attrs[name] = value
        weights.network_settings(weights.open_source(self.at("spoiled.h5")))
        return "read"


class Checkpoints(Subject):
    """Files of a run's checkpoints: one that is taken is whole, and the same on every reading."""

    def prepare(self) -> None:
        from tests.support import networks

        self.run = networks.write_run(self.at("run"), num_classes=10)
        self.names = [name for name in os.listdir(self.run) if name.startswith(checkpoint_files.BASENAME)]
        self.whole = {name: get(os.path.join(self.run, name)) for name in self.names}
        self.values = self._read("model.ckpt-7")

    def _read(self, name: str) -> Dict[str, np.ndarray]:
        from densenet_keras.checkpoints import reader

        with reader.reading(os.path.join(self.run, name)) as opened:
            return {each: opened.get_tensor(each) for each in opened.get_variable_to_shape_map()}

    def attempt(self, chance: random.Random) -> Optional[str]:
        from densenet_keras.checkpoints import saver

        for name, content in self.whole.items():
            put(os.path.join(self.run, name), content)
        spoiled = chance.choice(self.names)
        put(os.path.join(self.run, spoiled), mutations.spoiled_bytes(chance, self.whole[spoiled]))
        found = saver.find_resumable(self.run)
        if found is None:
            raise Failed("a run with a checkpoint would start afresh")
        values = self._read(os.path.basename(found.path))
        if sorted(values) != sorted(self.values):
            raise Failed("a damaged checkpoint was taken: other variables")
        if any(not np.array_equal(values[name], self.values[name]) for name in values):
            raise Failed("a damaged checkpoint was taken: other values")
        return "whole"


class Manifest(Subject):
    """The manifest of a checkpoint, its checksum made right again every other time."""

    def prepare(self) -> None:
        from tests.support import networks

        self.run = networks.write_run(self.at("run"), num_classes=10)
        os.remove(os.path.join(self.run, "run.json"))
        self.prefix = os.path.join(self.run, "model.ckpt-7")
        config = Config().replace(model="densenet_tiny", num_classes=10)
        about = {
            "checkpoint": "model.ckpt-7", "step": 7, "epoch": 0.5, "data": {"step": 7},
            "configuration": config.to_json(), "class_names": [str(n) for n in range(10)],
        }  # fmt: skip
        manifest.write(self.prefix, checkpoint_files.ENDINGS, about)
        self.whole = json.loads(get(self.prefix + manifest.ENDING).decode())

    def attempt(self, chance: random.Random) -> Optional[str]:
        from densenet_keras.checkpoints import run_folder, saver
        from densenet_keras.data import classes

        spoiled = mutations.spoiled_json(chance, self.whole)
        if chance.random() < 0.5:
            with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
                values = json.loads(spoiled.decode("utf-8", "surrogatepass"))
                values.pop(manifest._CHECKSUM, None)
                spoiled = json.dumps({**values, manifest._CHECKSUM: manifest._of_content(values)}).encode()
        put(self.prefix + manifest.ENDING, spoiled)
        code = command(["verify", self.run])
        for read in (
            lambda: saver.find_resumable(self.run),
            lambda: run_folder.stored_config(self.run),
            lambda: run_folder.stored_config(self.prefix),
            lambda: classes.of_checkpoint(self.prefix, 0),
        ):
            with contextlib.suppress(UsageError, RunError):
                read()
        for aside in os.listdir(self.run):
            if aside.startswith(checkpoint_files.SET_ASIDE):
                raise Failed("a whole checkpoint was set aside")
        return code


class Pictures(Subject):
    """Pictures given to `predict`, and those in records whose checksum is right."""

    def prepare(self) -> None:
        from PIL import Image

        from densenet_keras.prediction.reader import PictureReader

        pixels = np.random.RandomState(0).randint(0, 256, (40, 30, 3), np.uint8)
        grey = Image.fromarray(pixels[:, :, 0])
        exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
        self.whole = [
            encode(pixels), encode(pixels, exif=exif), encode(pixels, progressive=True),
            encode(pixels, "png"), encode(pixels, "gif"), encode(pixels, "bmp"), encode(grey, "png"),
            encode(grey, "bmp"), encode(Image.fromarray(pixels).convert("CMYK")),
            encode(Image.fromarray(pixels).convert("P"), "png"),
        ]  # fmt: skip
        self.reader = PictureReader(32)

    def attempt(self, chance: random.Random) -> Optional[str]:
        from densenet_keras.prediction.reader import UnreadableError

        try:
            pixels = self.reader.read(mutations.spoiled_bytes(chance, chance.choice(self.whole)))
        except UnreadableError:
            return "refused"
        if pixels.shape != (32, 32, 3) or pixels.dtype != np.uint8:
            raise Failed(f"pixels of shape {pixels.shape}, {pixels.dtype}")
        return "read"


class TrainingPictures(Pictures):
    """Spoiled pictures under a right checksum, decoded as training does."""

    def attempt(self, chance: random.Random) -> Optional[str]:
        import tensorflow as tf

        from densenet_keras.data.inputs import Inputs, naming_bad_records
        from densenet_keras.data.order import Stream

        shutil.rmtree(self.at("data"), ignore_errors=True)
        os.makedirs(self.at("data"))
        payloads = [
            example(
                mutations.spoiled_bytes(chance, chance.choice(self.whole)) if n == 1 else self.whole[0], n + 1
            )
            for n in range(4)
        ]
        write_shard(self.at("data", "train-00000-of-00001"), payloads)
        config = Config().replace(
            model="densenet_tiny", num_classes=10, image_size=32, batch_size=4, data_dir=self.at("data"),
            data_threads=1, log_dir=self.at("run"), bad_record_share=chance.choice((0.0001, 0.3)),
        )  # fmt: skip
        shutil.rmtree(self.at("run"), ignore_errors=True)
        inputs = Inputs(config, Topology(), train=True, evaluate=False)
        with tf.Graph().as_default(), tf.compat.v1.Session() as session, naming_bad_records():
            dataset = inputs.train_dataset(tf.constant(0, tf.int64), Stream(0))
            batch = tf.compat.v1.data.make_one_shot_iterator(dataset).get_next()
            session.run(batch)
        return "read"


SUBJECTS: Dict[str, Callable[[str], Subject]] = {
    "records": Records, "examples": Examples, "index": Index, "rank_table": RankTable, "hccn_conf": HccnConf,
    "run_json": RunJson, "metrics": Metrics, "labels": Labels, "rendezvous": Rendezvous,
    "environment": Environment, "flags": Flags, "csv": Csv, "weights": Weights, "keras_h5": KerasDescription,
    "checkpoints": Checkpoints, "manifest": Manifest, "pictures": Pictures,
    "training_pictures": TrainingPictures,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit("run python -m tests.endurance.fuzz")
