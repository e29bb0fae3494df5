"""What a run leaves and takes up again: checkpoints, and the run folder around them."""
