"""Small pictures as files, in every layout that `prepare` takes."""

import io
import os
import tarfile

import numpy as np

from tests.support import records as fake


def picture(number, size=(12, 10)):
    """Pixels that no other number has, [height, width, 3] uint8."""
    return np.random.RandomState(number).randint(0, 256, size + (3,)).astype(np.uint8)


def jpeg(number, size=(12, 10), **options):
    return fake.encode(picture(number, size), **options)


def write(path, data):
    """Writes bytes, and the folders above."""
    os.makedirs(os.path.dirname(str(path)), exist_ok=True)
    with open(str(path), "wb") as file:
        file.write(data)
    return str(path)


def class_folders(folder, classes=("cat", "dog", "owl"), count=8, first=0):
    """A folder with `count` different JPEGs for each class; returns its path."""
    for place, name in enumerate(classes):
        for number in range(count):
            seed = first + 1000 * place + number
            write(os.path.join(str(folder), name, f"{number:03d}.jpg"), jpeg(seed))
    return str(folder)


def tar(files):
    """The bytes of a tar archive of (name, bytes)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def imagenet(folder, synsets=("n00000003", "n00000001", "n00000002"), count=6, validation=5):
    """ImageNet's two tar files in small, the synsets not in order; returns the validation synsets."""
    inner = []
    for synset in synsets:
        files = [(f"{synset}_{n}.JPEG", jpeg(int(synset[1:]) * 100 + n)) for n in range(count)]
        inner.append((f"{synset}.tar", tar(files)))
    write(os.path.join(str(folder), "ILSVRC2012_img_train.tar"), tar(inner))
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, validation + 1)]
    files = [(name, jpeg(9000 + number)) for number, name in enumerate(names)]
    # Not in order: archives need not be.
    write(os.path.join(str(folder), "ILSVRC2012_img_val.tar"), tar(files[::-1]))
    return [synsets[number % len(synsets)] for number in range(validation)]
