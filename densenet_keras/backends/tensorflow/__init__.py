"""CPU and GPU ranks on stock TensorFlow."""
