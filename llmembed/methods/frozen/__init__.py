"""Backbones are read and never changed: a small head, a linear map, or no backbone at all."""
