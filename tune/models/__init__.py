"""Searches over how a whole model is trained: each trial starts a training on Ray Train."""
