"""A language model is asked; nothing is trained."""
