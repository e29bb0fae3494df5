"""The callbacks of a run, called as Keras calls them."""

from __future__ import annotations

import time
from typing import Any, Dict, Optional

import numpy as np
import tensorflow as tf
from tensorflow.python.keras.callbacks import CallbackList

SLOW_SECONDS = 0.1  # Keras says nothing of callbacks that are faster than that


class Hooks(CallbackList):
    """Keras' list of callbacks, without a median at every batch.

    Keras takes one over the last calls of a hook to warn of slow callbacks, for as long as the callbacks of a
    run take together. Here it is taken where one of these calls was slow: the warnings are the same.
    """

    def on_train_batch_begin(self, batch: int, logs: Optional[Dict[str, Any]] = None) -> None:
        """Calls it of all callbacks."""
        self._t_enter_batch = before = time.time()
        for callback in self.callbacks:
            callback.on_train_batch_begin(batch, logs)
        self._note("on_train_batch_begin", time.time() - before)

    def on_train_batch_end(self, batch: int, logs: Optional[Dict[str, Any]] = None) -> None:
        """Calls it of all callbacks."""
        before = time.time()
        self._delta_t_batch = before - self._t_enter_batch
        for callback in self.callbacks:
            callback.on_train_batch_end(batch, logs)
        self._note("on_train_batch_end", time.time() - before)

    def _note(self, hook: str, seconds: float) -> None:
        last = self._delta_ts[hook]
        last.append(seconds)
        if max(last) <= SLOW_SECONDS:
            return
        median = np.median(last)
        if median > SLOW_SECONDS and median > 0.95 * self._delta_t_batch > 0.0:
            tf.compat.v1.logging.warning(
                "Method (%s) is slow compared to the batch update (%f). Check your callbacks.", hook, median
            )
