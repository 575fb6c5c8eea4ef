"""Checkpoints: the file, models from it, other projects' weights."""
