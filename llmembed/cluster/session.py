from __future__ import annotations


def connect() -> None: ...


def disconnect() -> None: ...
