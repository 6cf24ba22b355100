"""How figures are written in sentences and tables."""

from __future__ import annotations


def fraction(value: float) -> str:
    """Four decimals, without the leading nought."""
    text = f"{value:.4f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text
