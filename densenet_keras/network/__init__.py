"""What is trained: variants, layers and networks; knows nothing of flags, data or devices."""
