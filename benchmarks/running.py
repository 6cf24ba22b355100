"""What the benchmarks share: their options, the small world of ``--tiny``, figures on disk."""

from __future__ import annotations

import argparse
import atexit
import importlib.util
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TOPICS = {
    "crude": "oil price barrel opec supply tanker",
    "grain": "wheat corn export harvest tonnes acres",
    "money": "bank rates cut currency dollar reserves",
}
ROWS = {"train": 80, "dev": 20, "test": 30}


class Figures(dict[str, Any]):
    """Figures by name, on disk as they come: what minutes have found is kept if a later part fails.

    They stand in ``FILE.partial`` until ``finish`` makes that ``FILE``, so that a run that was
    ended does not replace what a whole one found. Without a file they are kept nowhere. A file that
    can't be written raises ``OSError`` at once.
    """

    def __init__(self, file: Path | None) -> None:
        super().__init__(command=command(), machine=machine())
        self._file = file
        self.add()

    def add(self, **figures: Any) -> None:
        self.update(figures)
        if self._file is not None:
            self._partial().parent.mkdir(parents=True, exist_ok=True)
            self._partial().write_text(json.dumps(self, indent=1) + "\n", encoding="utf-8")

    def finish(self) -> None:
        self.add()
        if self._file is not None:
            self._partial().replace(self._file)

    def _partial(self) -> Path:
        assert self._file is not None
        return self._file.with_name(f"{self._file.name}.partial")


def parse(parser: argparse.ArgumentParser, **tiny: Any) -> argparse.Namespace:
    """The command line's options, ``--json`` and ``--tiny`` added. With ``--tiny`` the values of
    ``tiny`` are the defaults, and data and models are built on the spot."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument(
        "--tiny",
        action="store_true",
        help="all of it within seconds, on few rows and a small model made on the spot; "
        "its figures say nothing",
    )
    if parser.parse_known_args()[0].tiny:
        place = small_world()
        if parser.get_default("model"):
            tiny["model"] = str(small_model(place))
        if parser.get_default("files"):
            tiny["files"] = str(place / "files")
        parser.set_defaults(**tiny)
    return parser.parse_args()


def add_corpus(parser: argparse.ArgumentParser) -> None:
    """The options of benchmarks that embed a corpus themselves."""
    parser.add_argument("--data", metavar="DIR", help="local copies of the benchmarks")
    parser.add_argument("--corpus", default="r8", help="benchmark whose texts are used")
    parser.add_argument("--limit", type=int, help="no more than so many texts of each part")
    parser.add_argument("--store", type=Path, metavar="DIR", help="keeps embeddings between runs")
    parser.add_argument("--model", default="minilm", help="with at least five blocks and a pooler")


def use_data(folder: str | None) -> None:
    """Read benchmarks from local copies in ``folder``."""
    if folder is not None:
        os.environ["LLMEMBED_DATA_DIR"] = folder


def command() -> str:
    """As it was typed, but for absolute paths, which are this machine's: they are ``PATH``."""

    def known(word: str) -> str:
        name, equals, value = word.rpartition("=")
        return f"{name}{equals}PATH" if Path(value).expanduser().is_absolute() else word

    words = [f"benchmarks/{Path(sys.argv[0]).name}", *map(known, sys.argv[1:])]
    return " ".join(["python", *words])


def machine() -> str:
    """Its processor, and how many cores it has."""
    named = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{named}, {os.cpu_count()} x {names[0] if names else 'unknown processor'}"


def installed(module: str, *, extra: str, without: str) -> bool:
    """Whether ``module`` is there; where it is not, says what is left out ``without`` it."""
    found = importlib.util.find_spec(module) is not None
    if not found:
        print(
            f"{module} is not installed (pip install 'llmembed[{extra}]'): {without}",
            file=sys.stderr,
            flush=True,
        )
    return found


def small_world() -> Path:
    """Small copies of the benchmarks that are the scripts' defaults, where ``LLMEMBED_DATA_DIR``
    then leads, in a folder that is there until the process ends."""
    import pyarrow.parquet as pq

    place = tempfile.TemporaryDirectory(prefix="llmembed-tiny-")
    atexit.register(place.cleanup)
    folder = Path(place.name)
    for name in ("r8", "massive-en"):
        (folder / "data" / name).mkdir(parents=True)
        for part, count in ROWS.items():
            pq.write_table(_rows(part, count), folder / "data" / name / f"{part}.parquet")
    use_data(str(folder / "data"))
    return folder


def small_model(folder: Path) -> Path:
    """A BERT of random weights that knows the words of ``small_world``."""
    sys.path.append(str(ROOT / "tests"))
    from tiny_bert import save_tiny_bert

    words = [word for words in TOPICS.values() for word in words.split()]
    return save_tiny_bert(folder / "tiny-bert", words, layers=5)


def _rows(part: str, count: int) -> Any:
    """Distinct texts of words of their topic, in the columns of both benchmarks."""
    import pyarrow as pa

    rows = []
    for i in range(count):
        topic = list(TOPICS)[i % len(TOPICS)]
        own = TOPICS[topic].split()
        tokens = [f"{part}{i}", *(own[(i * 5 + k * k) % len(own)] for k in range(4 + i % 9))]
        rows.append(
            {
                "text": " ".join(tokens),
                "label": topic,
                "intent": topic,
                "scenario": "money" if topic == "money" else "goods",
                "tokens": tokens,
                "slots": ["O", "B-thing", "I-thing", *["O"] * (len(tokens) - 3)],
            }
        )
    return pa.Table.from_pylist(rows)
