"""Memory of `prepare` on many small pictures, and what that means for ImageNet.

    python benchmarks/prepare_memory.py [--pictures 200000]

Writes small JPEGs under names as long as ImageNet's in 1,000 class folders, runs the command on them in
a process of its own, and prints that process's peak: for the pictures of half the classes, for all,
and, from the difference, for ImageNet's 1,331,167.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile

import side_by_side

IMAGENET_PICTURES = 1_281_167 + 50_000
CLASSES = 1000
MEGABYTE = 1 << 20


def write_pictures(folder: str, classes: range, of_a_class: int) -> None:
    """One small JPEG again and again, each made its own by a comment."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (90, 120, 30)).save(buffer, "jpeg")
    encoded = buffer.getvalue()
    for number in classes:
        place = os.path.join(folder, f"n{number:08d}")
        os.makedirs(place)
        for picture in range(of_a_class):
            with open(os.path.join(place, f"n{number:08d}_{picture}.JPEG"), "wb") as file:
                comment = b"%04d%06d" % (number, picture)
                file.write(encoded[:2] + b"\xff\xfe\x00\x0c" + comment + encoded[2:])


def peak_megabytes(pictures: str, data_dir: str) -> float:
    """Peak memory of the command on a folder; of an earlier, smaller one if that needed more."""
    command = [sys.executable, "-m", "densenet_keras", "prepare", pictures, "--data_dir", data_dir]
    return side_by_side.run_command(command)["peak_megabytes"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=200_000, help="pictures to write (default: 200000)")
    options = parser.parse_args()
    of_a_class = options.pictures // CLASSES
    with tempfile.TemporaryDirectory() as folder:
        pictures = os.path.join(folder, "pictures")
        peaks = []
        for number, half in enumerate((range(CLASSES // 2), range(CLASSES // 2, CLASSES))):
            write_pictures(pictures, half, of_a_class)
            peaks.append(peak_megabytes(pictures, os.path.join(folder, f"data{number}")))
            print(f"{of_a_class * CLASSES // (2 - number)} pictures: peak {peaks[-1]:.0f} MB", flush=True)
    each = (peaks[1] - peaks[0]) / (options.pictures / 2)
    imagenet = peaks[1] + each * (IMAGENET_PICTURES - options.pictures)
    print(
        f"{MEGABYTE * each:.0f} bytes a picture more; for ImageNet's {IMAGENET_PICTURES}: {imagenet:.0f} MB"
    )


if __name__ == "__main__":
    main()
