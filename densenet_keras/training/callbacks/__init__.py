"""Keras callbacks of a training run.

The order of the list matters and stands in one place, the function that builds it:

1. CosineLearningRate, which checks the rate that the steps used,
2. Throughput, which adds `images_per_second` to the logs where a log line is due,
3. on the primary only: Console, Metrics, TensorBoard, ProgressBar, which write where that is so, and
   KeepBest, which looks at evaluations,
4. CheckpointSaver, which saves nothing that is not finite,
5. Evaluate: after CheckpointSaver, so that what is evaluated has been saved; before the user's own
   callbacks, so that these find val_top1, val_top5 and val_loss in the epoch's logs,
6. Summary, on the primary only, which shows the figures of 5,
7. the user's own.

None of them sees a step that went wrong: the loop looks before them (see `recovery`). Where it goes back,
those with a method `on_rewind(step, words)` have it called.

Those of 3 and 6 never touch the session or another rank, so they cannot make a rank wait for its peers.
1, 2, 4 and 5 run on every rank.
"""

from __future__ import annotations

from densenet_keras.training.callbacks.best import KeepBest
from densenet_keras.training.callbacks.console import Console
from densenet_keras.training.callbacks.evaluation import Evaluate
from densenet_keras.training.callbacks.learning_rate import CosineLearningRate
from densenet_keras.training.callbacks.metrics import Metrics
from densenet_keras.training.callbacks.progress_bar import ProgressBar
from densenet_keras.training.callbacks.saving import CheckpointSaver
from densenet_keras.training.callbacks.summary import Summary
from densenet_keras.training.callbacks.tensorboard import TensorBoard
from densenet_keras.training.callbacks.throughput import Throughput

__all__ = [
    "CheckpointSaver",
    "Console",
    "CosineLearningRate",
    "Evaluate",
    "KeepBest",
    "Metrics",
    "ProgressBar",
    "Summary",
    "TensorBoard",
    "Throughput",
]
