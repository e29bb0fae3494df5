"""What the classes of an answer are called."""

import numpy as np
import pytest

from densenet_keras.errors import UsageError
from densenet_keras.prediction.classifier import Classifier
from tests.support.networks import write_run


def answered(run):
    with Classifier.load(run, threads=1) as network:
        (answer,) = network.predict(np.zeros((8, 8, 3), np.uint8))
    return sorted((guess.number, guess.label) for guess in answer.top)


def test_names_are_those_of_labels_txt_and_numbers_without_one(tmp_path):
    run = write_run(tmp_path / "run", num_classes=3, image_size=32, backend="tensorflow")
    assert answered(run) == [(0, "0"), (1, "1"), (2, "2")]
    (tmp_path / "run" / "labels.txt").write_text("cat\ndog\nowl\n")
    assert answered(run) == [(0, "cat"), (1, "dog"), (2, "owl")]
    (tmp_path / "run" / "labels.txt").write_text("1:cat\n2:dog\n")
    with pytest.raises(UsageError, match="labels.txt names 2 of the network's 3 classes"):
        Classifier.load(run, threads=1)
