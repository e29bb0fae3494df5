"""Processes: who is which rank, starting ranks, watching and ending them together."""
