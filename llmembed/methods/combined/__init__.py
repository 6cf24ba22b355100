"""Classifiers made of others: several answer, one is told."""
