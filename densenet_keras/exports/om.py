"""What an offline model for Ascend chips is made from: a frozen graph, its preprocessing (AIPP), the command.

Facts are those of Huawei's ATC guide, CANN commercial 5.0.4 to 8.0 (hiascend.com, atlasatc_16_0022, _0025,
_0027, _0029 and _0038): TensorFlow graphs must be frozen; AIPP swaps red and blue first if told to, then
computes (pixel - mean_chn - min_chn) * var_reci_chn for each channel. mean_chn are whole numbers, the others
fractions, with 0 <= min_chn <= 255. ATC itself runs only where CANN is installed.
"""

from __future__ import annotations

import os
import re
from typing import Dict, List

import numpy as np

from densenet_keras.exports import inference, pb
from densenet_keras.exports.base import Format, Pictures, Subject
from densenet_keras.network.preprocessing import PREPROCESSINGS

AIPP_FILE = "aipp.cfg"
COMMAND_FILE = "convert.sh"


def write(folder: str, subject: Subject) -> None:
    """The graph, on normalised pictures, the AIPP configuration and the command."""
    pb.write(folder, subject)
    with open(os.path.join(folder, AIPP_FILE), "w", encoding="utf-8") as file:
        file.write(aipp(subject.network.preprocessing, subject.image_size))
    with open(os.path.join(folder, COMMAND_FILE), "w", encoding="utf-8") as file:
        file.write("#!/bin/sh -e\n" + " \\\n  ".join(atc(subject)) + "\n")


def aipp(preprocessing: str, image_size: int) -> str:
    """The AIPP configuration: uint8 RGB of the network's size, to what the network is given."""
    wanted = PREPROCESSINGS[preprocessing]
    lines = [
        "aipp_mode: static",
        "related_input_rank: 0",
        "input_format: RGB888_U8",
        f"src_image_size_w: {image_size}",
        f"src_image_size_h: {image_size}",
        "crop: false",
        "csc_switch: false",
        f"rbuv_swap_switch: {str(wanted.channels == 'BGR').lower()}",
    ]
    for channel in range(3):
        lines += [
            f"mean_chn_{channel}: 0",
            f"min_chn_{channel}: {wanted.mean[channel]:.10g}",
            f"var_reci_chn_{channel}: {1 / wanted.deviation[channel]:.10g}",
        ]
    return "aipp_op {\n" + "".join(f"  {line}\n" for line in lines) + "}\n"


def atc(subject: Subject) -> List[str]:
    """The words of the command that makes the OM file of the graph."""
    size, options = subject.image_size, subject.options
    return [
        "atc",
        f"--model={pb.FILE}",
        "--framework=3",  # TensorFlow
        f"--output={subject.network.model}",
        "--input_format=NHWC",
        f'--input_shape="{inference.PIXELS}:{options.batch_size},{size},{size},3"',
        f'--out_nodes="{inference.LOGITS}:0"',
        "--output_type=FP32",
        f"--insert_op_conf={AIPP_FILE}",
        f"--soc_version={options.soc_version}",
    ]


def read(folder: str, pictures: Pictures) -> Dict[str, np.ndarray]:
    """Logits of the graph on pixels that went through the AIPP configuration as it is written."""
    with open(os.path.join(folder, AIPP_FILE), encoding="utf-8") as file:
        settings = dict(re.findall(r"(\w+): (\S+)", file.read()))
    pixels = pictures.pixels[..., ::-1] if settings["rbuv_swap_switch"] == "true" else pictures.pixels
    channels = range(3)
    offset = [float(settings[f"mean_chn_{c}"]) + float(settings[f"min_chn_{c}"]) for c in channels]
    factor = [float(settings[f"var_reci_chn_{c}"]) for c in channels]
    normalised = (pixels - np.array(offset)) * np.array(factor)
    return {"the graph and AIPP": inference.run(pb.load(folder), normalised)}


def usage(subject: Subject) -> str:
    """How to make the OM file, and what it then takes."""
    size, batch_size = subject.image_size, subject.options.batch_size
    return f"""`{pb.FILE}` is a frozen TensorFlow graph on normalised pictures, `{AIPP_FILE}` the
preprocessing that the chip does. `{COMMAND_FILE}` makes `{subject.network.model}.om` of both where CANN is
installed:

```bash
{" ".join(atc(subject))}
```

The OM file takes {batch_size} x {size} x {size} x 3 bytes, RGB with the channels last, and gives
`{inference.LOGITS}` in float32. ATC computes in float16 unless told otherwise (`--precision_mode`), so the
logits of the OM file differ more from the checkpoint's than those of the graph. **The command has not been
run:** what was compared is the graph, on pixels that went through the numbers in `{AIPP_FILE}`.
"""


FORMAT = Format(write, read, usage)
