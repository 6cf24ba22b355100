"""`ray job submit --working-dir . -- python -m jobs.report …`:
print a stored leaderboard again.

The options are those of `llmembed report`; the cluster is the one the job runs on.
"""

from __future__ import annotations

import sys

from jobs import run

if __name__ == "__main__":
    sys.exit(run("report", sys.argv[1:]))
