"""`ray job submit --working-dir . -- python -m jobs.embed …`:
fill the embedding store.

The options are those of `llmembed embed`; the cluster is the one the job runs on.
"""

from __future__ import annotations

import sys

from jobs import run

if __name__ == "__main__":
    sys.exit(run("embed", sys.argv[1:]))
