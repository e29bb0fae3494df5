"""A folder of pictures, odd files among them, goes the whole way: prepare, finetune, evaluate, predict."""

import json
import os
import subprocess
import sys

from PIL import Image

from densenet_keras.data import records as data_records
from densenet_keras.data import tfrecord
from tests.support import commands, pictures
from tests.support import records as fake
from tests.support.paths import ROOT


def tool(name, *arguments, code=0):
    """stdout and stderr of a command of `python -m densenet_keras`, which must exit with `code`."""
    command = [sys.executable, "-m", "densenet_keras", name, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, env=commands.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=300, check=False,
    )  # fmt: skip
    output = done.stdout.decode("utf-8", "replace")
    assert done.returncode == code, output
    return output


def odd_pictures(folder):
    """What people have: a phone's picture, a PNG called jpg, a moving GIF, one cut off, a file manager's."""
    image = Image.fromarray(pictures.picture(5000, (40, 50)))
    block = Image.Exif()
    block[0x0112] = 6
    pictures.write(folder / "cat" / "phone.jpg", fake.encode(image, exif=block.tobytes()))
    pictures.write(folder / "cat" / "really_png.jpg", fake.encode(image.rotate(3), "png"))
    pictures.write(folder / "dog" / "moving.gif", fake.encode(image.rotate(7), "gif"))
    pictures.write(folder / "dog" / "grey.bmp", fake.encode(image.convert("L"), "bmp"))
    pictures.write(folder / "dog" / "cut.jpg", fake.encode(image.rotate(9))[:-200])
    pictures.write(folder / "owl" / "cmyk.jpg", fake.encode(image.rotate(11).convert("CMYK")))
    pictures.write(folder / "owl" / "Thumbs.db", b"junk")


def trained_network(folder):
    """The run folder of a small network after a few steps on ten other classes."""
    data = fake.write_noise(folder / "ten_classes", train=32, validation=10)
    commands.run(
        "train_keras.py", "--model", "densenet_tiny", "--data_dir", data, "--log_dir", folder / "ten",
        "--image_size", 32, "--batch_size", 8, "--max_train_steps", 4, "--mode", "train",
    )  # fmt: skip
    return folder / "ten"


def validation_pictures(data):
    """The source paths of the pictures that were held out."""
    split = data_records.open_split(str(data), "validation")
    examples = [tfrecord.read_example(fake.payload(split, number)) for number in range(len(split))]
    return [example["image/filename"][0].decode() for example in examples]


def test_from_several_hundred_pictures_to_answers(tmp_path):
    folder, data, run, table = (tmp_path / name for name in ("pictures", "data", "run", "table.json"))
    pictures.class_folders(folder, count=120)
    odd_pictures(folder)
    said = tool("prepare", folder, "--data_dir", data, "--validation_share", "0.2")
    assert "1 turned, 2 converted" in said
    assert "1 pictures were left out" in said
    assert tool("check", "--data_dir", data).splitlines()[-1] == "0 errors, 0 warnings"
    commands.run(
        "finetune.py", "--restore", trained_network(tmp_path), "--data_dir", data, "--log_dir", run,
        "--max_epochs", 1,
    )  # fmt: skip
    commands.run("evaluate.py", "--eval_dir", run, "--data_dir", data, "--json", table)
    evaluated = json.loads(table.read_text())[-1]
    assert evaluated["images"] == json.loads((data / "dataset.json").read_text())["pictures"]["validation"]
    output = tool("predict", "--restore", run, folder, "--top_k", 3, "--json", "true", code=1)
    answers = {os.path.relpath(a["path"], str(folder)): a for a in json.loads(output[output.index("[\n") :])}
    assert len(answers) == 3 * 120 + 6  # all but what a file manager left
    assert [path for path, answer in answers.items() if "error" in answer] == ["dog/cut.jpg"]
    assert all(
        {guess["label"] for guess in answer["top"]} == {"cat", "dog", "owl"}
        for answer in answers.values() if "top" in answer
    )  # fmt: skip
    held_out = validation_pictures(data)
    right = [answers[path]["top"][0]["label"] == path.split("/")[0] for path in held_out]
    assert 100.0 * sum(right) / len(right) == evaluated["top1"]


def test_from_imagenets_tar_files_to_a_checked_data_set(tmp_path):
    synsets = pictures.imagenet(tmp_path)
    labels = pictures.write(tmp_path / "labels", "\n".join(synsets).encode())
    tool("prepare", tmp_path, "--data_dir", str(tmp_path) + "-data", "--validation_labels", labels)
    assert "0 errors" in tool("check", "--data_dir", str(tmp_path) + "-data")
