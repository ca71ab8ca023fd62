"""Batch normalization from scratch, in NumPy only: what Part I of the course derives."""
