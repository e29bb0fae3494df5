"""A folder of pictures, odd files among them, becomes a data set; a network is trained and evaluated."""

import json
import subprocess
import sys

from PIL import Image

from tests.support import commands, pictures
from tests.support import records as fake
from tests.support.paths import ROOT


def tool(name, *arguments):
    """stdout of a command of `python -m densenet_keras`, which must succeed."""
    command = [sys.executable, "-m", "densenet_keras", name, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, env=commands.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=300, check=False,
    )  # fmt: skip
    output = done.stdout.decode("utf-8", "replace")
    assert done.returncode == 0, output
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


def test_from_pictures_to_an_evaluated_network(tmp_path):
    pictures.class_folders(tmp_path / "pictures", count=40)
    odd_pictures(tmp_path / "pictures")
    data, run = tmp_path / "data", tmp_path / "run"
    said = tool("prepare", tmp_path / "pictures", "--data_dir", data, "--validation_share", "0.2")
    assert "1 turned, 2 converted" in said
    assert "1 pictures were left out" in said
    assert tool("check", "--data_dir", data).splitlines()[-1] == "0 errors, 0 warnings"
    commands.run(
        "train_keras.py", "--model", "densenet_tiny", "--data_dir", data, "--log_dir", run, "--max_epochs", 1,
        "--num_classes", 3, "--batch_size", 16,
    )  # fmt: skip
    table = tmp_path / "table.json"
    commands.run("evaluate.py", "--eval_dir", run, "--data_dir", data, "--json", table)
    with open(str(data / "dataset.json")) as file:
        validation = json.load(file)["pictures"]["validation"]
    with open(str(table)) as file:
        assert [line["images"] for line in json.load(file)] == [validation]


def test_from_imagenets_tar_files_to_a_checked_data_set(tmp_path):
    synsets = pictures.imagenet(tmp_path)
    labels = pictures.write(tmp_path / "labels", "\n".join(synsets).encode())
    tool("prepare", tmp_path, "--data_dir", str(tmp_path) + "-data", "--validation_labels", labels)
    assert "0 errors" in tool("check", "--data_dir", str(tmp_path) + "-data")
