"""Trained networks as files of other programs: one module for each format, which writes it and reads it back.

`inference` makes the graph that most of them hold, `pictures` what they are compared on, `read_back` reads
them in a process of its own.
"""
