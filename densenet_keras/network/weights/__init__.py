"""Weights from elsewhere: what a file holds, what its names mean here, and whether it is all there.

A reader for each format (`safetensors`, `npz`, `keras_h5`, `mindspore_ckpt`, `tensorflow_checkpoint`) gives
`Tensors`; a layout for each family of names (`names`) says which variable each one is; `source` puts the two
together. Nothing here needs TensorFlow before a TensorFlow checkpoint is read, and nothing is unpickled.
"""
