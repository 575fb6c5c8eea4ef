"""Deployment: what takes a trained model out of Python. It imports `tasks`; only `tools` import it."""
