"""What ``ray job submit --working-dir . -- python -m jobs.pipeline …`` runs: the main job whole.

Embeds the corpus, compares the methods, registers the winner and prints the leaderboard, each step
skipped as far as an earlier run finished it. The options are those of ``llmembed compare``.
"""

from __future__ import annotations

import sys

from jobs import run

if __name__ == "__main__":
    sys.exit(run("embed", sys.argv[1:]) or run("compare", sys.argv[1:]))
