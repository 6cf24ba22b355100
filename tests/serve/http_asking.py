"""Texts to ask a server for, and how."""

from __future__ import annotations

import requests
from small_models import news

TEXTS = list(news(6, seed=5).texts)


def ask(url, body=None, **options):
    body = {"inputs": "oil price"} if body is None else body
    return requests.post(url, json=body, timeout=30, **options)
