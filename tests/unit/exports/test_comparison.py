"""Which exports are near enough to the checkpoint."""

import numpy as np
import pytest

from densenet_keras.errors import RunError
from densenet_keras.exports.comparison import compare

EXPECTED = np.array([[1.0, 8.0, -10.0], [0.0, 2.0, 1.0]])


def test_the_largest_difference_of_all_ways_is_said_relative_to_the_largest_logit():
    found = {"one": EXPECTED + 1e-5, "other": EXPECTED - 5e-5}
    difference = compare(EXPECTED, found, "float32")
    assert difference.way == "other"
    assert difference.largest == pytest.approx(5e-6)
    assert "5.0e-06 of the largest logit, by way of other" in difference.words


@pytest.mark.parametrize(("precision", "error"), [("float32", 1.1e-3), ("float16", 0.11)])
def test_too_large_a_difference_is_refused(precision, error):
    compare(EXPECTED, {"way": EXPECTED + 0.8 * error}, precision)
    with pytest.raises(RunError, match=r"logits .way. differ from the checkpoint's"):
        compare(EXPECTED, {"other": EXPECTED, "way": EXPECTED + error}, precision)


def test_what_is_no_number_is_refused():
    with pytest.raises(RunError, match="nan"):
        compare(EXPECTED, {"way": np.full_like(EXPECTED, np.nan)}, "float32")


def test_another_shape_is_refused():
    with pytest.raises(RunError, match=r"shape \(2, 4\).*\(2, 3\)"):
        compare(EXPECTED, {"way": np.zeros((2, 4))}, "float32")


def test_another_top_1_is_refused_but_not_a_tie():
    apart = np.array([[100.0, 1.5, 0.0], [0.1, 1.5, 0.0]])
    tie = np.array([[100.0, 1.5, 0.0], [1.2, 1.5, 0.0]])
    flipped = apart.copy()
    flipped[1] = [0.9, 0.8, 0.0]
    with pytest.raises(RunError, match="top-1.*another class"):
        compare(apart, {"way": flipped}, "float16")
    flipped[1] = [1.4, 1.3, 0.0]
    compare(tie, {"way": flipped}, "float16")
