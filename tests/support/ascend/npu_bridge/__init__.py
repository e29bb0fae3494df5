"""A stand-in for the Ascend adapter: the names that both of its generations have."""
