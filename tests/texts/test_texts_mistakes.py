"""Mistakes with files that end in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmembed.errors import DataError
from llmembed.experiment import Data
from llmembed.pipelines.corpus import make_corpus


def test_an_encoding_that_is_not_the_files(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"text,label\n" + b"good food,food\nfast cars,cars\n" * 30)
    with pytest.raises(DataError):
        make_corpus(Data(source=[str(file)], encoding="utf-16"), str(tmp_path / "files"))


def test_a_workbook_is_called_one(tmp_path: Path) -> None:
    file = tmp_path / "a.xlsx"
    file.write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"workbook.*CSV UTF-8"):
        make_corpus(Data(source=[str(file)]), str(tmp_path / "files"))
