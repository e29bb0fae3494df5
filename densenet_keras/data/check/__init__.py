"""What is wrong with a data set: every record read, every picture decoded, every label counted."""
