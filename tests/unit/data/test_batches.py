"""Streams repeat bit for bit over ranks, threads and restarts; evaluation takes each image once."""

import resource
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from densenet_keras.data import batches as pipeline
from densenet_keras.data import records, synthetic
from densenet_keras.data.order import TrainOrder, eval_batches_per_rank
from densenet_keras.data.places import TrainPlaces
from densenet_keras.data.record_reader import RecordReader
from densenet_keras.settings.config import Config
from densenet_keras.topology import Topology
from tests.support import plain_input
from tests.support import records as fake
from tests.support.paths import ROOT

TRAIN, VALIDATION = 37, 11
MANY_CLASSES = 1000  # each record carries its own label, so labels tell records apart


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return fake.write_noise(
        tmp_path_factory.mktemp("data"),
        train=TRAIN,
        validation=VALIDATION,
        shards=3,
        classes=MANY_CLASSES,
        size=(20, 26),
    )


@pytest.fixture(scope="module")
def train_split(data_dir):
    return records.open_split(data_dir, "train")


@pytest.fixture(scope="module")
def eval_split(data_dir):
    return records.open_split(data_dir, "validation")


def config(**values):
    defaults = {"batch_size": 8, "image_size": 16, "num_classes": 10, "data_threads": 2, "seed": 4}
    return Config().replace(**{**defaults, **values})


def take(make, count, start_step=0):
    """The first `count` elements of the dataset that make(start_step tensor) builds."""
    with tf.Graph().as_default():
        start = tf.compat.v1.placeholder_with_default(tf.constant(0, tf.int64), [])
        iterator = tf.compat.v1.data.make_initializable_iterator(make(start))
        element = iterator.get_next()
        with tf.compat.v1.Session() as session:
            session.run(iterator.initializer, {start: start_step})
            return [session.run(element) for _ in range(count)]


def train_batches(split, count, start_step=0, rank=0, size=1, **values):
    topology = Topology(rank, size)
    return take(
        lambda start: pipeline.train_dataset(split, config(**values), topology, start), count, start_step
    )


def eval_batches(split, count, rank=0, size=1, **values):
    return take(lambda _: pipeline.eval_dataset(split, config(**values), Topology(rank, size)), count)


def global_batches(split, size, count, global_batch=8):
    """Images and labels of all ranks, put together step by step in rank order."""
    ranks = [
        train_batches(split, count, rank=rank, size=size, batch_size=global_batch // size)
        for rank in range(size)
    ]
    return [
        tuple(np.concatenate([batches[step][part] for batches in ranks]) for part in range(2))
        for step in range(count)
    ]


def assert_equal(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second):
        for part, other_part in zip(one, other):
            np.testing.assert_array_equal(part, other_part)


# Training


def test_each_pass_over_the_data_takes_every_image_once(train_split):
    labels = np.concatenate([batch[1] for batch in train_batches(train_split, 19)])
    for first in range(0, 4 * TRAIN, TRAIN):
        assert sorted(labels[first : first + TRAIN]) == list(range(TRAIN))


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_together_see_the_stream_of_one_rank(train_split, size):
    assert_equal(global_batches(train_split, size, 7), train_batches(train_split, 7))


@pytest.mark.parametrize("step", [1, 5, 12])
def test_a_stream_entered_at_a_step_is_the_rest_of_the_whole(train_split, step):
    assert_equal(train_batches(train_split, 3, start_step=step), train_batches(train_split, step + 3)[step:])


@pytest.mark.parametrize("threads", [1, 3, 16])
def test_threads_do_not_change_the_bits(train_split, threads):
    assert_equal(train_batches(train_split, 7, data_threads=threads), train_batches(train_split, 7))


def test_images_belong_to_their_labels(train_split):
    whole = train_batches(train_split, 5, min_crop_area=1.0, horizontal_flip=False, image_size=20)
    by_label = {}
    for images, labels in whole:
        for image, label in zip(images, labels):
            np.testing.assert_array_equal(image, by_label.setdefault(label, image))
    assert len({image.tobytes() for image in by_label.values()}) == TRAIN
    first = int(np.flatnonzero(train_split.label == 1)[0])
    encoded = RecordReader(train_split).images([first])[0]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        pixels = session.run(tf.image.decode_jpeg(encoded)).astype(float)
    assert np.corrcoef(pixels.mean((1, 2)), by_label[0].astype(float).mean((1, 2)))[0, 1] > 0.9


def test_flips_differ_within_a_batch_and_between_passes(train_split):
    plain = train_batches(train_split, 10, min_crop_area=1.0, horizontal_flip=False)
    batches = train_batches(train_split, 10, min_crop_area=1.0)
    flips = {}
    mixed_batches = 0
    for (plain_images, labels), (images, _) in zip(plain, batches):
        flipped = [not np.array_equal(*pair) for pair in zip(plain_images, images)]
        mixed_batches += 0 < sum(flipped) < len(flipped)
        for label, flip in zip(labels, flipped):
            flips.setdefault(label, []).append(flip)
    assert mixed_batches >= 8
    both = [label for label, drawn in flips.items() if len(set(drawn)) == 2]
    assert len(both) > TRAIN // 4


def test_crops_differ_between_passes(train_split):
    seen = {}
    for images, labels in train_batches(train_split, 15, horizontal_flip=False):
        for image, label in zip(images, labels):
            seen.setdefault(label, set()).add(image.tobytes())
    assert all(len(crops) >= 3 for crops in seen.values())


def test_seed_changes_order_and_crops(train_split):
    ours, other = (train_batches(train_split, 1, seed=seed)[0] for seed in (4, 5))
    assert not np.array_equal(ours[1], other[1])


def test_split_smaller_than_a_batch(eval_split):
    labels = np.concatenate([batch[1] for batch in train_batches(eval_split, 2, batch_size=30)])
    for first in range(0, 5 * VALIDATION, VALIDATION):
        assert sorted(labels[first : first + VALIDATION]) == list(range(VALIDATION))


def test_label_offset_is_taken_off(train_split):
    labels = np.concatenate([batch[1] for batch in train_batches(train_split, 5, label_offset=-3)])
    assert set(labels) == set(range(4, 4 + TRAIN))


def test_more_shards_than_open_files(train_split):
    reader = RecordReader(train_split, max_open_files=1)
    everything = np.arange(TRAIN)[::-1]
    images = reader.images(everything, everything)
    for record, image in zip(everything, images):
        assert image in fake.payload(train_split, record)
    assert len(reader._descriptors) == 1
    reader.close()
    assert reader.images(everything[:1])[0] == images[0]


@pytest.mark.parametrize(
    ("allowed", "kept"), [(64, 16), (1024, 256), (10**6, 256), (2, 1), (resource.RLIM_INFINITY, 256)]
)
def test_a_process_that_may_open_few_files_keeps_few_shards_open(monkeypatch, train_split, allowed, kept):
    monkeypatch.setattr(resource, "getrlimit", lambda limit: (allowed, allowed))
    assert RecordReader(train_split)._max_open_files == kept


# Evaluation


@pytest.mark.parametrize(("batch_size", "size"), [(4, 1), (4, 2), (11, 1), (2, 4), (16, 3)])
def test_evaluation_takes_every_image_once(eval_split, batch_size, size):
    count = eval_batches_per_rank(VALIDATION, batch_size, size)
    seen = []
    for rank in range(size):
        for images, labels, weights in eval_batches(eval_split, count, rank, size, batch_size=batch_size):
            assert set(weights) <= {0.0, 1.0}
            assert not images[weights == 0].any()
            seen.extend(labels[weights == 1])
    assert sorted(seen) == list(range(VALIDATION))


def test_evaluation_ends_and_starts_again(eval_split):
    with tf.Graph().as_default():
        dataset = pipeline.eval_dataset(eval_split, config(batch_size=4), Topology())
        iterator = tf.compat.v1.data.make_initializable_iterator(dataset)
        element = iterator.get_next()
        with tf.compat.v1.Session() as session:
            rounds = []
            for _ in range(2):
                session.run(iterator.initializer)
                rounds.append([session.run(element) for _ in range(3)])
                with pytest.raises(tf.errors.OutOfRangeError):
                    session.run(element)
    assert_equal(rounds[0], rounds[1])


# Damage


def damaged_split(tmp_path, payloads):
    fake.write_split(tmp_path, "train", payloads, shards=1)
    return records.open_split(str(tmp_path), "train")


def test_record_damaged_since_indexing_stops_training_by_name(tmp_path):
    split = damaged_split(tmp_path, fake.noise_payloads(6))
    with open(split.paths[0], "r+b") as file:
        file.seek(int(split.offset[4]) + 50)
        file.write(b"\0\0\0\0")
    with pytest.raises(tf.errors.OpError, match=r"train-00000-of-00001: record 4 at byte \d+: the checksum"):
        train_batches(split, 1, batch_size=6)


@pytest.mark.parametrize("batches", [train_batches, eval_batches])
def test_image_written_damaged_stops_by_name(tmp_path, batches):
    payloads = fake.noise_payloads(6)
    payloads[2] = fake.example(b"\xff\xd8\xff\xe0 no more of a JPEG than its first bytes", 1)
    split = damaged_split(tmp_path, payloads)
    with pytest.raises(tf.errors.OpError, match=r"of-00001: record 2 at byte \d+: the image cannot"):
        batches(split, 1, batch_size=6)


PIXELS = np.random.RandomState(0).randint(0, 256, (61, 83, 3)).astype(np.uint8)
COLOUR = Image.fromarray(PIXELS)
MIXED = {
    "jpeg": fake.encode(PIXELS),
    "upright jpeg": fake.encode(PIXELS.transpose(1, 0, 2)),
    "progressive": fake.encode(PIXELS, progressive=True),
    "unsampled": fake.encode(PIXELS, subsampling=0),
    "turned in EXIF": fake.encode(
        PIXELS, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"
    ),
    "grey jpeg": fake.encode(PIXELS[:, :, 0]),
    "cmyk": fake.encode(COLOUR.convert("CMYK")),
    "one pixel": fake.encode(PIXELS[:1, :1]),
    "two by five": fake.encode(PIXELS[:2, :5]),
    "long": fake.encode(np.tile(PIXELS[:3], (1, 5, 1))),
    "png": fake.encode(PIXELS, "png"),
    "grey png": fake.encode(PIXELS[:, :, 0], "png"),
    "alpha png": fake.encode(COLOUR.convert("RGBA"), "png"),
    "palette png": fake.encode(COLOUR.quantize(32), "png"),
    "small png": fake.encode(PIXELS[:1, :3], "png"),
}
# TensorFlow's decoder passes over these bytes, which stand where a marker should; ours of headers does not.
JUNK = fake.encode(PIXELS)[:20] + b"junk" + fake.encode(PIXELS)[20:]


def assert_plain(split, images, count, start=0, rank=0, size=1, **values):
    """That batches of six hold what each of these encoded images is by itself."""
    given = config(batch_size=6, **values)
    data = given.data
    order = TrainOrder(data.seed, len(split), 6, rank, size)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        encoded, draw = tf.compat.v1.placeholder(tf.string, []), tf.compat.v1.placeholder(tf.int64, [2])
        plain = plain_input.train_image(
            encoded, draw, given.model.image_size, data.min_crop_area, data.horizontal_flip
        )
        got = train_batches(split, count, start, rank, size, batch_size=6, **values)
        for step, (found, labels) in enumerate(got, start):
            batch = order.batch(step)
            np.testing.assert_array_equal(labels, batch.records)
            for image, record, seeds in zip(found, batch.records, batch.draws):
                expected = session.run(plain, {encoded: images[record], draw: seeds})
                np.testing.assert_array_equal(image, expected)


def mixed_split(tmp_path, images):
    return damaged_split(tmp_path, [fake.example(image, 1 + row) for row, image in enumerate(images)])


@pytest.mark.parametrize("values", [
    {}, {"horizontal_flip": False}, {"min_crop_area": 1.0}, {"image_size": 40, "min_crop_area": 0.5},
])  # fmt: skip
def test_a_picture_in_a_batch_is_what_it_is_by_itself(monkeypatch, tmp_path, values):
    """In any format, from any step on, on any rank."""
    one_by_one = []
    monkeypatch.setattr(TrainPlaces, "attempt", lambda *given: one_by_one.append(given))
    images = list(MIXED.values())
    split = mixed_split(tmp_path, images)
    assert_plain(split, images, 6, **values)
    assert_plain(split, images, 6, start=3, rank=1, size=2, **values)
    assert not one_by_one, "a header read wrongly costs no picture, but has its batch decoded anew"


def test_a_picture_with_a_header_that_only_tensorflow_reads_is_shown(tmp_path):
    images = [JUNK, *MIXED.values()]
    assert_plain(mixed_split(tmp_path, images), images, 5)


def test_a_png_with_a_damaged_header_is_named(tmp_path):
    payloads = fake.noise_payloads(6)
    png = bytearray(fake.encode(PIXELS, "png"))
    png[31] ^= 1  # the checksum of its header
    payloads[2] = fake.example(bytes(png), 1)
    with pytest.raises(tf.errors.OpError, match=r"of-00001: record 2 at byte \d+: the image cannot"):
        train_batches(damaged_split(tmp_path, payloads), 1, batch_size=6)


# Shapes and stages


def datasets():
    rank = Topology(1, 2)
    return {
        "train": lambda split: pipeline.train_dataset(split, config(), rank, tf.constant(0, tf.int64)),
        "eval": lambda split: pipeline.eval_dataset(split, config(), rank),
        "synthetic train": lambda _: synthetic.synthetic_train_dataset(config(), rank),
        "synthetic eval": lambda _: synthetic.synthetic_eval_dataset(config(), rank),
    }


@pytest.mark.parametrize("name", datasets())
def test_shapes_are_static_and_prefetch_comes_last(train_split, name):
    with tf.Graph().as_default():
        dataset = datasets()[name](train_split)
        shapes = tf.compat.v1.data.get_output_shapes(dataset)
        dtypes = tf.compat.v1.data.get_output_types(dataset)
        assert [shape.as_list() for shape in shapes] == [[8, 16, 16, 3], [8], [8]][: len(shapes)]
        assert list(dtypes) == [tf.uint8, tf.int32, tf.float32][: len(dtypes)]
        assert len(shapes) == (3 if "eval" in name else 2)
        assert dataset._variant_tensor.op.type == "PrefetchDataset"


@pytest.mark.parametrize("name", ["train", "eval"])
def test_no_operation_on_a_picture_divides_its_work(train_split, name):
    """Right before the last prefetch, so that it holds for all that decodes."""
    with tf.Graph().as_default():
        last = datasets()[name](train_split)._variant_tensor.op
        limit = last.inputs[0].op
        assert limit.type == "MaxIntraOpParallelismDataset"
        assert tf.get_static_value(limit.inputs[1]) == 1


# Synthetic data


def test_synthetic_training_repeats_one_batch_of_its_rank():
    def batches(rank, **values):
        return take(lambda _: synthetic.synthetic_train_dataset(config(**values), Topology(rank, 2)), 3)

    first = batches(0)
    assert_equal(first[:1] * 3, first)
    assert_equal(first, batches(0))
    assert not np.array_equal(first[0][0], batches(1)[0][0])
    assert not np.array_equal(first[0][0], batches(0, seed=5)[0][0])
    assert first[0][0].std() > 60  # uniform over 0..255 has 74
    assert set(first[0][1]) <= set(range(10))


@pytest.mark.parametrize("size", [1, 3])
def test_synthetic_evaluation_counts_its_images(size):
    count = eval_batches_per_rank(50, 8, size)
    total = 0.0
    for rank in range(size):
        batches = take(
            lambda _, rank=rank: synthetic.synthetic_eval_dataset(config(), Topology(rank, size), images=50),
            count,
        )
        total += sum(batch[2].sum() for batch in batches)
    assert total == 50


# Destruction


def test_closing_the_session_of_a_busy_stream_is_safe(data_dir):
    """In a process of its own: an unsafe stage takes the process down."""
    code = f"""if True:
        import tensorflow as tf
        from densenet_keras.data import batches as pipeline, records
        from densenet_keras.topology import Topology
        from tests.unit.data.test_batches import config

        split = records.open_split({data_dir!r}, "train")
        with tf.Graph().as_default() as graph:
            start = tf.constant(0, tf.int64)
            dataset = pipeline.train_dataset(split, config(image_size=64), Topology(), start)
            iterator = tf.compat.v1.data.make_initializable_iterator(dataset)
            element = iterator.get_next()
        for _ in range(6):
            with tf.compat.v1.Session(graph=graph) as session:
                session.run(iterator.initializer)
                session.run(element)
    """
    assert subprocess.call([sys.executable, "-c", code], cwd=ROOT) == 0
