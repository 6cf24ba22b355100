"""``python -m llmembed`` is ``llmembed``."""

import sys

from llmembed.cli import main

if __name__ == "__main__":
    sys.exit(main())
