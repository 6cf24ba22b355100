"""`ray job submit --working-dir . -- python -m jobs.predict …`:
label files of any size, resumable.

The options are those of `llmembed predict`; the cluster is the one the job runs on.
"""

from __future__ import annotations

import sys

from jobs import run

if __name__ == "__main__":
    sys.exit(run("predict", sys.argv[1:]))
