"""The names of ImageNet's classes."""

import pytest

from densenet_keras.data.imagenet_names import class_names


def test_every_class_has_a_name_of_its_own_in_the_order_of_the_labels():
    names = class_names(1000)
    assert len(set(names)) == 1000
    assert [names[n] for n in (0, 281, 340, 999)] == ["tench", "tabby", "zebra", "toilet tissue"]
    assert names[134] == "crane (n02012849)"
    assert names[517] == "crane (n03126707)"


def test_tensorflow_s_1001_classes_have_the_background_in_front():
    assert class_names(1001) == ("background", *class_names(1000))


def test_other_data_has_other_names():
    with pytest.raises(ValueError, match="num_classes=999"):
        class_names(999)
