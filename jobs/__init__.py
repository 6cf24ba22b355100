"""What ``ray job submit`` runs: each job is one command of llmembed on the job's own cluster.

::

    ray job submit --working-dir . -- python -m jobs.compare --data r8 --files s3://bucket/llmembed

A job's working directory is a copy that goes with the job, so files go to ``--files``, to
``LLMEMBED_FILES``, or to ``llmembed-files`` in the home folder of the head node.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def run(command: str, arguments: Sequence[str]) -> int:
    """Run ``llmembed command`` as a job; returns its exit code."""
    from llmembed.cli import main

    os.environ.setdefault("LLMEMBED_FILES", str(Path.home() / "llmembed-files"))
    return main([command, *arguments])
