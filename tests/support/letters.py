"""Pictures of letters: small data that a network can learn, unlike noise, and that are no digits."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tests.support import records

SIDE = 32  # pixels
GLYPH_SIDE = 11  # pixels of Pillow's built-in bitmap font, with a margin
MOST_DEGREES = 20
NOISE = 14.0  # standard deviation, in grey levels


def picture(letter, random):
    """`letter` turned, scaled, moved and noisy, as `random` has it: a grey PIL image."""
    glyph = Image.new("L", (GLYPH_SIDE, GLYPH_SIDE))
    ImageDraw.Draw(glyph).text((3, 0), letter, font=ImageFont.load_default(), fill=255)
    side = int(SIDE * random.uniform(0.8, 1.1))
    glyph = glyph.resize((side, side), Image.BICUBIC)
    glyph = glyph.rotate(random.uniform(-MOST_DEGREES, MOST_DEGREES), resample=Image.BICUBIC)
    canvas = Image.new("L", (SIDE, SIDE))
    canvas.paste(glyph, tuple((SIDE - side) // 2 + random.randint(-2, 3, 2)))
    grey = np.asarray(canvas, np.float32) * random.uniform(0.6, 1.0) + random.uniform(0, 40)
    grey += random.normal(0.0, NOISE, grey.shape)
    return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))


def write(folder, letters, train=20, validation=40, seed=0):
    """A data_dir with so many pictures of each letter in each split; returns its path."""
    return write_counts(folder, dict.fromkeys(letters, train), dict.fromkeys(letters, validation), seed)


def write_counts(folder, train, validation, seed=0):
    """A data_dir with `train[letter]` and `validation[letter]` pictures of each; returns its path."""
    random = np.random.RandomState(seed)
    for split, counts in (("train", train), ("validation", validation)):
        payloads = [
            records.example(records.encode(picture(letter, random).convert("RGB")), label)
            for label, letter in enumerate(counts, 1)
            for _ in range(counts[letter])
        ]
        random.shuffle(payloads)
        records.write_split(folder, split, payloads, shards=1)
    return str(folder)
