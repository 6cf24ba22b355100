"""`ray job submit --working-dir . -- python -m jobs.fit …`:
fit one method, track and register it.

The options are those of `llmembed fit`; the cluster is the one the job runs on.
"""

from __future__ import annotations

import sys

from jobs import run

if __name__ == "__main__":
    sys.exit(run("fit", sys.argv[1:]))
