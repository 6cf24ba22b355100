"""Labelled texts from files, object stores, the hub or the running Python itself.

::

    files, s3://, hub ──► blocks ──► checks ──► labels ──► split ──► Corpus
    (csv tsv json parquet arrow)        └──► quarantine (file, line, reason)

    a text too many for memory ──► readers ──► tables of a bounded number of rows
"""

from __future__ import annotations

from llmembed.texts.benchmarks import BENCHMARKS, Benchmark
from llmembed.texts.columns import Columns
from llmembed.texts.corpus import Corpus, digest_of, load_corpus
from llmembed.texts.feedback import with_feedback
from llmembed.texts.form import Form
from llmembed.texts.quarantine import BadRow, Quarantine
from llmembed.texts.source import CorpusSource
from llmembed.texts.streaming import FileReader, readers

__all__ = [
    "BENCHMARKS",
    "BadRow",
    "Benchmark",
    "Columns",
    "Corpus",
    "CorpusSource",
    "FileReader",
    "Form",
    "Quarantine",
    "digest_of",
    "load_corpus",
    "readers",
    "with_feedback",
]
