"""`ray job submit --working-dir . -- python -m jobs.compare …`:
several methods on one data set, one leaderboard.

The options are those of `llmembed compare`; the cluster is the one the job runs on.
"""

from __future__ import annotations

import sys

from jobs import run

if __name__ == "__main__":
    sys.exit(run("compare", sys.argv[1:]))
