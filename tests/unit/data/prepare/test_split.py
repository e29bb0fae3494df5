"""Every class is on either side, and pictures added later move no others."""

import numpy as np

from densenet_keras.data.prepare import sources, split
from tests.support import pictures


def listing_of(tmp_path, counts):
    for name, numbers in counts.items():
        for number in numbers:
            pictures.write(tmp_path / name / f"{number}.jpg", b"x")
    return sources.look(str(tmp_path), "")


def held_out(listing, share=0.2, seed=0):
    chosen = split.decide(listing, share, seed)
    return {listing.name(row) for row in np.flatnonzero(chosen == 1)}


def test_about_the_share_of_each_class_is_held_out(tmp_path):
    listing = listing_of(tmp_path, {"a": range(400), "b": range(200)})
    chosen = held_out(listing)
    assert 60 <= sum(name.startswith(b"a") for name in chosen) <= 100
    assert 25 <= sum(name.startswith(b"b") for name in chosen) <= 55


def test_the_seed_draws_anew(tmp_path):
    listing = listing_of(tmp_path, {"a": range(100), "b": range(100)})
    assert held_out(listing, seed=0) == held_out(listing, seed=0)
    assert held_out(listing, seed=0) != held_out(listing, seed=1)


def test_every_class_is_on_either_side(tmp_path):
    counts = {f"c{number}": range(2 + number % 3) for number in range(40)}
    listing = listing_of(tmp_path, counts)
    for share in (0.01, 0.5, 0.99):
        chosen = held_out(listing, share)
        for name, numbers in counts.items():
            mine = sum(path.startswith(f"{name}/".encode()) for path in chosen)
            assert 1 <= mine < len(numbers)


def test_a_class_of_one_picture_is_for_training(tmp_path):
    assert held_out(listing_of(tmp_path, {"a": [1], "b": range(5)}), 0.9) & {b"a/1.jpg"} == set()


def test_pictures_added_later_move_no_others(tmp_path):
    before = held_out(listing_of(tmp_path, {"a": range(50), "b": range(50)}))
    old = {f"{name}/{number}.jpg".encode() for name in "ab" for number in range(50)}
    after = held_out(listing_of(tmp_path, {"a": range(120), "b": range(60), "0": range(30)}))
    assert after & old == before


def test_what_the_source_decides_stays(tmp_path):
    pictures.class_folders(tmp_path / "train", ("a", "b"), count=2)
    pictures.class_folders(tmp_path / "val", ("a", "b"), count=2)
    listing = sources.look(str(tmp_path), "")
    assert list(split.decide(listing, 0.9, 0)) == list(listing.split)
