"""Fine-tuning on little data: better than from scratch, and always to an end."""

import pytest

from examples import digits
from tests.support import commands, letters

UPRIGHT = ("--min_crop_area", 0.6, "--horizontal_flip", "false")  # a mirrored digit is no digit
SCHEDULE = ("--lr_update", "step", "--epochs_between_evals", 100)
EPOCHS = 5
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The run folder of the digits demo, longer than README's: densenet_tiny, 10 epochs."""
    folder = tmp_path_factory.mktemp("demo")
    digits.write(str(folder / "digits"), 1)
    commands.run(
        "train_keras.py", "--model", "densenet_tiny", "--data_dir", folder / "digits", "--log_dir",
        folder / "run", "--image_size", 32, "--num_classes", 10, "--max_epochs", 10, "--T_max", 10, *UPRIGHT,
        *SCHEDULE,
    )  # fmt: skip
    return folder / "run"


def top1(run):
    """Percent at the last evaluation of a run."""
    return commands.metrics(run)[1][-1]["top1"]


def test_from_the_digits_to_twenty_pictures_each_of_five_letters_is_better_than_from_scratch(demo, tmp_path):
    data = letters.write(tmp_path / "letters", "ABCDE", train=20, validation=40)
    gains = []
    for seed in SEEDS:  # one of them decides little: thirty steps from one checkpoint end 10 % apart
        same = (
            "--data_dir", data, "--max_epochs", EPOCHS, "--T_max", EPOCHS, "--batch_size", 16, "--lr", 0.1,
            "--seed", seed, *UPRIGHT, *SCHEDULE,
        )  # fmt: skip
        tuned, scratch = tmp_path / f"tuned{seed}", tmp_path / f"scratch{seed}"
        commands.run("finetune.py", "--restore", demo, "--log_dir", tuned, *same)
        commands.run(
            "train_keras.py", "--model", "densenet_tiny", "--image_size", 32, "--num_classes", 5,
            "--log_dir", scratch, *same,
        )  # fmt: skip
        gains.append(top1(tuned) - top1(scratch))
    assert sum(gains) / len(gains) >= 8


@pytest.mark.parametrize(
    ("counts", "flags"),
    [
        pytest.param({"A": 2, "B": 3, "C": 1}, (), id="fewer_than_a_batch_and_a_class_of_one"),
        pytest.param({"A": 5, "B": 4}, ("--bn_statistics", "keep", "--batch_size", 4), id="two_classes"),
        pytest.param({"A": 1, "B": 1}, ("--freeze", "all"), id="two_pictures"),
    ],
)
def test_the_smallest_data_is_learnt_to_the_end(demo, tmp_path, counts, flags):
    data = letters.write_counts(tmp_path / "data", train=counts, validation=dict.fromkeys(counts, 1))
    output = commands.run(
        "finetune.py", "--restore", demo, "--data_dir", data, "--log_dir", tmp_path / "run",
        "--max_epochs", 2, *UPRIGHT, *flags,
    )  # fmt: skip
    assert "finished" in output
    assert 0 <= top1(tmp_path / "run") <= 100
