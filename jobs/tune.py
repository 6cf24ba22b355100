"""`ray job submit --working-dir . -- python -m jobs.tune …`:
search fusions and heads, or how a model is fine-tuned, with Ray Tune.

The options are those of `llmembed tune`; the cluster is the one the job runs on.
"""

from __future__ import annotations

import sys

from jobs import run

if __name__ == "__main__":
    sys.exit(run("tune", sys.argv[1:]))
