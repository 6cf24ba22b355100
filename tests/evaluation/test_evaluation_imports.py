"""Importing the room loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys


def test_no_heavy_import():
    heavy = "{'torch', 'ray', 'mlflow', 'sklearn', 'matplotlib', 'pandas', 'transformers', 'rich'}"
    code = f"import sys, llmembed.evaluation; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
