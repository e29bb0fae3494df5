"""The input of a run: records on disk, their order, images, batches."""
