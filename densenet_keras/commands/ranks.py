"""What one rank does for each command that ranks carry out together."""

from __future__ import annotations

from densenet_keras.commands.evaluate import evaluate
from densenet_keras.commands.predict import answer_share
from densenet_keras.commands.train import train
from densenet_keras.rank import Rank
from densenet_keras.settings.config import EVALUATE, PREDICT, Config
from densenet_keras.training import user_callbacks


def run(config: Config, rank: Rank) -> None:
    """This rank's part of the command in `config`."""
    if config.command == EVALUATE:
        evaluate(config, rank)
        return
    if config.command == PREDICT:
        answer_share(config, rank)
        return
    callbacks = user_callbacks.load(config.run.callbacks) if config.run.callbacks else []
    train(config, callbacks, rank)
