"""Each kind of source is recognised by looking at it, and what cannot work is refused."""

import os

import pytest

from densenet_keras.data.prepare import sources
from densenet_keras.data.prepare.listing import UNDECIDED
from densenet_keras.errors import UsageError
from tests.support import pictures

TRAIN, VALIDATION = 0, 1


def look(path, labels=""):
    return sources.look(str(path), str(labels))


def rows(listing):
    """(path, class, split) of each picture."""
    return [
        (os.fsdecode(listing.name(row)), listing.classes[listing.label[row]], int(listing.split[row]))
        for row in range(len(listing))
    ]


def refused(path, labels=""):
    with pytest.raises(UsageError) as caught:
        look(path, labels)
    return str(caught.value)


# Class folders


def test_class_folders_are_the_classes_in_the_order_of_their_names(tmp_path):
    pictures.class_folders(tmp_path, ("b", "a", "Z"), count=2)
    listing = look(tmp_path)
    assert listing.classes == ("Z", "a", "b")
    assert rows(listing)[2:4] == [("a/000.jpg", "a", UNDECIDED), ("a/001.jpg", "a", UNDECIDED)]
    assert listing.read(3) == pictures.jpeg(1001)
    assert listing.size[3] == len(pictures.jpeg(1001))


def test_classes_that_are_all_numbers_are_in_the_order_of_their_values(tmp_path):
    pictures.class_folders(tmp_path, ("10", "9", "2"), count=1)
    assert look(tmp_path).classes == ("2", "9", "10")


def test_folders_in_class_folders_belong_to_the_class(tmp_path):
    pictures.class_folders(tmp_path, ("a", "b"), count=1)
    pictures.write(tmp_path / "a" / "deep" / "er" / "x.png", b"x")
    assert [path for path, name, _ in rows(look(tmp_path)) if name == "a"] == ["a/000.jpg", "a/deep/er/x.png"]


def test_hidden_files_and_what_file_managers_leave_are_passed_over_in_silence(tmp_path):
    pictures.class_folders(tmp_path, ("a", "b"), count=1)
    for name in ("a/Thumbs.db", "a/.DS_Store", "a/._000.jpg", "b/desktop.ini", ".x/x.jpg", "__MACOSX/x.jpg"):
        pictures.write(tmp_path / name, b"junk")
    listing = look(tmp_path)
    assert len(listing) == 2
    assert listing.notes == []


def test_files_outside_the_class_folders_are_passed_over_with_a_note(tmp_path):
    pictures.class_folders(tmp_path, ("a", "b"), count=1)
    pictures.write(tmp_path / "README.txt", b"hello")
    assert "README.txt" in look(tmp_path).notes[0]


def test_links_are_followed_but_not_in_a_circle(tmp_path):
    pictures.class_folders(tmp_path / "elsewhere", ("x",), count=2)
    pictures.class_folders(tmp_path / "p", ("a",), count=1)
    os.symlink(str(tmp_path / "elsewhere" / "x"), str(tmp_path / "p" / "b"))
    os.symlink(str(tmp_path / "p" / "a"), str(tmp_path / "p" / "a" / "again"))
    os.symlink(str(tmp_path / "nowhere"), str(tmp_path / "p" / "a" / "broken.jpg"))
    os.mkfifo(str(tmp_path / "p" / "a" / "pipe.jpg"))  # reading it would wait for ever
    found = [path for path, _, _ in rows(look(tmp_path / "p"))]
    assert [path for path in found if path.startswith("b")] == ["b/000.jpg", "b/001.jpg"]
    assert "a/broken.jpg" in found
    assert "a/pipe.jpg" not in found
    assert len(found) == 4


def test_names_that_are_not_text_are_kept_as_they_are(tmp_path):
    pictures.class_folders(tmp_path, ("a", "b"), count=1)
    name = os.fsencode(str(tmp_path)) + b"/a/\xff\xfe.jpg"
    with open(name, "wb") as file:
        file.write(b"x")
    listing = look(tmp_path)
    assert b"a/\xff\xfe.jpg" in [listing.name(row) for row in range(3)]


def test_the_digest_tells_any_change(tmp_path):
    pictures.class_folders(tmp_path, ("a", "b"), count=1)
    digests = [look(tmp_path).digest, look(tmp_path).digest]
    assert digests[0] == digests[1]
    os.utime(str(tmp_path / "a" / "000.jpg"), ns=(1, 1))
    digests.append(look(tmp_path).digest)
    os.rename(str(tmp_path / "a"), str(tmp_path / "c"))
    digests.append(look(tmp_path).digest)
    pictures.write(tmp_path / "c" / "new.jpg", b"x")
    digests.append(look(tmp_path).digest)
    assert len(set(digests)) == 4


@pytest.mark.parametrize(("make", "words"), [
    (lambda root: None, "holds no folder"),
    (lambda root: pictures.class_folders(root, ("a",)), "holds one class folder, a"),
    (lambda root: pictures.write(root / "x.jpg", b"x"), "holds no folder"),
    (lambda root: [pictures.class_folders(root, ("a", "b")), (root / "no").mkdir()], "no holds no file"),
    (lambda root: pictures.class_folders(root, ("a", "b\n")), "not a line of UTF-8 text"),
])  # fmt: skip
def test_what_holds_no_classes_is_refused(tmp_path, make, words):
    make(tmp_path)
    assert words in refused(tmp_path)


def test_what_does_not_exist_or_is_no_source_is_refused(tmp_path):
    assert "does not exist" in refused(tmp_path / "nothing")
    assert "neither a folder nor a CSV file" in refused(pictures.write(tmp_path / "x.zip", b"PK"))


# train and val


@pytest.mark.parametrize("name", ["val", "validation", "valid", "test"])
def test_train_and_a_validation_folder_are_the_splits(tmp_path, name):
    pictures.class_folders(tmp_path / "train", ("a", "b"), count=2)
    pictures.class_folders(tmp_path / name, ("b",), count=1)
    listing = look(tmp_path)
    assert listing.classes == ("a", "b")
    assert rows(listing)[0] == ("train/a/000.jpg", "a", TRAIN)
    assert rows(listing)[-1] == (f"{name}/b/000.jpg", "b", VALIDATION)
    assert len(listing) == 5


@pytest.mark.parametrize(("train", "name"), [("Train", "Val"), ("TRAIN", "TEST"), ("train", "Validation")])
def test_capitals_in_the_names_of_the_parts_make_no_classes_of_them(tmp_path, train, name):
    for folder in (train, name):
        pictures.class_folders(tmp_path / folder, ("a", "b"), count=1)
    listing = look(tmp_path)
    assert listing.classes == ("a", "b")
    assert [split for _, _, split in rows(listing)] == [TRAIN, TRAIN, VALIDATION, VALIDATION]


@pytest.mark.parametrize(
    "names", [("train", "valid"), ("Training", "Testing"), ("train", "dev"), ("train", "Train")]
)
def test_parts_without_class_folders_or_of_other_names_are_not_taken_for_classes(tmp_path, names):
    pictures.class_folders(tmp_path, names, count=2)
    assert f"holds the folders {' and '.join(sorted(names))}, which name parts" in refused(tmp_path)


def test_of_val_and_test_val_is_taken(tmp_path):
    for name in ("train", "val", "test"):
        pictures.class_folders(tmp_path / name, ("a", "b"), count=1)
    listing = look(tmp_path)
    assert {path.split("/")[0] for path, _, _ in rows(listing)} == {"train", "val"}
    assert "test is not" in listing.notes[0]


def test_train_alone_is_split(tmp_path):
    pictures.class_folders(tmp_path / "train", ("a", "b"), count=1)
    assert {split for _, _, split in rows(look(tmp_path))} == {UNDECIDED}


def test_a_class_may_be_called_train(tmp_path):
    pictures.class_folders(tmp_path, ("bus", "train", "test"), count=1)
    assert look(tmp_path).classes == ("bus", "test", "train")


def test_a_class_for_validation_alone_is_refused(tmp_path):
    pictures.class_folders(tmp_path / "train", ("a", "b"), count=1)
    pictures.class_folders(tmp_path / "val", ("a", "c"), count=1)
    assert "val/c is a class that" in refused(tmp_path)


def test_validation_pictures_without_folders_take_their_classes_from_a_file(tmp_path):
    pictures.class_folders(tmp_path / "train", ("a", "b"), count=1)
    for number in (2, 1, 3):
        pictures.write(tmp_path / "val" / f"x{number}.jpg", pictures.jpeg(number))
    assert "--validation_labels is missing" in refused(tmp_path)
    labels = pictures.write(tmp_path / "labels", b"b\na\nb\n")
    assert [name for _, name, split in rows(look(tmp_path, labels)) if split] == ["b", "a", "b"]
    labels = pictures.write(tmp_path / "labels", b"b\na\n")
    assert "2 lines for 3 validation pictures" in refused(tmp_path, labels)
    table = b"ImageId,PredictionString\nx3,a 1 2 3 4\nx1,b 1\nx2,a\n"
    pictures.write(tmp_path / "LOC_val_solution.csv", table)
    assert [name for _, name, split in rows(look(tmp_path)) if split] == ["b", "a", "a"]


# ImageNet


def test_imagenet_is_read_where_it_lies(tmp_path):
    synsets = pictures.imagenet(tmp_path)
    labels = pictures.write(tmp_path / "labels.txt", "\n".join(synsets).encode())
    before = sorted(os.listdir(str(tmp_path)))
    listing = look(tmp_path, labels)
    assert listing.classes == ("n00000001", "n00000002", "n00000003")
    assert rows(listing)[:2] == [
        ("n00000001_0.JPEG", "n00000001", TRAIN), ("n00000001_1.JPEG", "n00000001", TRAIN)
    ]  # fmt: skip
    assert [name for _, name, split in rows(listing) if split == VALIDATION] == synsets
    assert [path for path, _, _ in rows(listing)][18] == "ILSVRC2012_val_00000001.JPEG"
    listing.open()
    for row, (path, name, split) in enumerate(rows(listing)):
        number = int(path.split("_")[-1].split(".")[0])
        seed = 9000 + number - 1 if split == VALIDATION else int(name[1:]) * 100 + number
        assert listing.read(row) == pictures.jpeg(seed)
    listing.close()
    assert sorted(os.listdir(str(tmp_path))) == before
    assert look(tmp_path / "ILSVRC2012_img_train.tar", labels).digest == listing.digest


def test_imagenet_takes_kaggles_table_and_finds_known_names(tmp_path):
    synsets = pictures.imagenet(tmp_path)
    assert "--validation_labels is missing" in refused(tmp_path)
    lines = [f"ILSVRC2012_val_{n:08d},{s} 1 2 3 4 " for n, s in enumerate(synsets, 1)]
    table = "\n".join(["ImageId,PredictionString", *lines[::-1]])
    pictures.write(tmp_path / "LOC_val_solution.csv", table.encode())
    assert [name for _, name, split in rows(look(tmp_path)) if split == VALIDATION] == synsets


@pytest.mark.parametrize(("labels", "words"), [
    ("n00000001\n", "1 lines for 5 validation pictures"),
    ("n00000001\n" * 4 + "n00000009\n", "n00000009, which the training part does not have"),
    ("490\n361\n171\n822\n297\n", "holds numbers"),
    ("ImageId,PredictionString\nILSVRC2012_val_00000001,n00000001\n", "no line for ILSVRC2012_val_00000002"),
    ("ImageId,PredictionString\nILSVRC2012_val_00000001\n", "line 2"),
])  # fmt: skip
def test_validation_labels_that_do_not_fit_are_refused(tmp_path, labels, words):
    pictures.imagenet(tmp_path)
    assert words in refused(tmp_path, pictures.write(tmp_path / "labels", labels.encode()))


def test_imagenet_without_its_validation_part_is_split(tmp_path):
    pictures.imagenet(tmp_path)
    os.remove(str(tmp_path / "ILSVRC2012_img_val.tar"))
    assert {split for _, _, split in rows(look(tmp_path))} == {UNDECIDED}


@pytest.mark.parametrize("damage", [
    lambda data: data[: len(data) // 2], lambda data: b"\x1f\x8b" + data, lambda data: data[:512],
    lambda data: b"", lambda data: data.replace(b"n00000001_3.JPEG", b"n00000001_3.JPEX"),
    lambda data: data.replace(b"n00000001.tar", b"n0000000X.tar"),
], ids=["half", "compressed", "header", "empty", "inner header", "outer header"])  # fmt: skip
def test_a_damaged_archive_is_named(tmp_path, damage):
    synsets = pictures.imagenet(tmp_path)
    pictures.write(tmp_path / "labels", "\n".join(synsets).encode())
    path = tmp_path / "ILSVRC2012_img_train.tar"
    pictures.write(path, damage(path.read_bytes()))
    assert "ILSVRC2012_img_train.tar" in refused(tmp_path, tmp_path / "labels")


# CSV


def table(folder, text, name="pictures.csv"):
    return pictures.write(folder / name, text.encode("utf-8"))


def test_a_table_names_pictures_labels_and_splits(tmp_path):
    for number in range(3):
        pictures.write(tmp_path / f"{number}.jpg", pictures.jpeg(number))
    text = "\ufeffLabel, path ,split\ndog,0.jpg,train\ncat,1.jpg,val\n\ndog,2.jpg,\n"
    assert rows(look(table(tmp_path, text))) == [
        ("0.jpg", "dog", TRAIN), ("1.jpg", "cat", VALIDATION), ("2.jpg", "dog", UNDECIDED)
    ]  # fmt: skip


def test_paths_in_a_table_may_be_whole_and_files_may_be_missing(tmp_path):
    path = pictures.write(tmp_path / "far" / "x.jpg", pictures.jpeg(1))
    listing = look(table(tmp_path, f"path,label\n{path},a\nnothing.jpg,b\n"))
    assert listing.read(0) == pictures.jpeg(1)
    assert list(listing.size) == [len(pictures.jpeg(1)), 0]


@pytest.mark.parametrize(("text", "words"), [
    ("", "has no column path"),
    ("file,label\n", "has no column path"),
    ("path;label\na;b\n", "separated by commas"),
    ("path,label\na.jpg,x\nb.jpg\n", "line 3"),
    ("path,label\na.jpg,\n", "line 2: a path and a label"),
    ("path,label,split\na.jpg,x,learn\n", "split 'learn' must be"),
    ("path,label\na.jpg,x\n", "names 1 class"),
])  # fmt: skip
def test_a_table_that_cannot_be_used_is_refused(tmp_path, text, words):
    assert words in refused(table(tmp_path, text))


# Names of classes


def test_class_names_come_from_a_file(tmp_path):
    pictures.class_folders(tmp_path / "p", ("n01", "n02"), count=1)
    listing = look(tmp_path / "p")
    names = pictures.write(tmp_path / "names", b"n02 shark, big one\nn01\ttench\nn03 more\n")
    assert sources.class_texts(listing, names) == ["tench", "shark, big one"]
    assert sources.class_texts(listing, "") == ["n01", "n02"]
    with pytest.raises(UsageError, match="no line for 1 of 2 classes, such as n02"):
        sources.class_texts(listing, pictures.write(tmp_path / "names", b"n01 tench\n"))
