"""Scopes that mark nodes for the compiler."""

import contextlib

from tensorflow.core.framework import attr_value_pb2
from tensorflow.python.framework import ops


@contextlib.contextmanager
def keep_dtype_scope():
    with ops.get_default_graph()._attr_scope({"_keep_dtype": attr_value_pb2.AttrValue(b=True)}):
        yield
