"""The name that `images` had before version 0.7, for programs that import it."""

from densenet_keras.data.images import decode_eval, decode_train, normalize

__all__ = ["decode_eval", "decode_train", "normalize"]
