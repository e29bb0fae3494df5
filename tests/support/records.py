"""Small shard sets in the TF-Slim layout, written without TensorFlow."""

import io
import os

import numpy as np
from PIL import Image

from densenet_keras.data import tfrecord


def encode(pixels, kind="jpeg", **options):
    """`pixels` ([height, width, 3] or [height, width] uint8, or a PIL image) as JPEG, PNG or GIF bytes."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    if kind == "jpeg":
        options.setdefault("quality", 95)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def example(encoded, label, **more):
    """A serialised Example with the two keys the trainer needs."""
    features = {"image/encoded": encoded, "image/class/label": label}
    features.update(more)
    return tfrecord.encode_example(features)


def write_shard(path, payloads):
    """A TFRecord file of these payloads."""
    with open(str(path), "wb") as file:
        for payload in payloads:
            file.write(tfrecord.frame(payload))


def write_split(folder, name, payloads, shards=2):
    """`payloads` dealt out over `shards` files NAME-0000k-of-0000N; returns their paths."""
    os.makedirs(str(folder), exist_ok=True)
    paths = []
    for shard in range(shards):
        path = os.path.join(str(folder), f"{name}-{shard:05d}-of-{shards:05d}")
        write_shard(path, payloads[shard::shards])
        paths.append(path)
    return paths


def payload(split, record):
    """The serialised Example of record number `record` of an opened split."""
    with open(split.paths[split.shard[record]], "rb") as file:
        file.seek(int(split.offset[record]))
        return file.read(int(split.length[record]))


def noise_payloads(count, size=(24, 20), classes=10, seed=0, label_offset=1):
    """`count` JPEG Examples of noise, all different; size is (height, width), labels from 1 in turn."""
    random = np.random.RandomState(seed)
    return [
        example(encode(random.randint(0, 256, size + (3,), np.uint8)), label_offset + number % classes)
        for number in range(count)
    ]


def write_noise(folder, train=40, validation=16, shards=2, **options):
    """A data_dir with both splits; returns its path."""
    write_split(folder, "train", noise_payloads(train, seed=1, **options), shards)
    write_split(folder, "validation", noise_payloads(validation, seed=2, **options), shards)
    return str(folder)
