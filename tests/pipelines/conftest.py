"""The server that speaks the OpenAI protocol and the tiny Llama lie with the generators' tests."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "generation"))
