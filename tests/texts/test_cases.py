"""The files of ``tests/cases``, one kind of oddness each, through the door that ``fit`` opens: what
is read of each and what is printed of it, or the one sentence that refuses it.

Rows are 30 but where said, so 22, 2 and 6 with the usual fractions: .2 of 30 are 6, .1 of 24 are 2.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from llmembed.errors import UserError
from llmembed.experiment import Data
from llmembed.pipelines.console import say_corpus
from llmembed.pipelines.corpus import make_corpus
from llmembed.texts import Corpus

CASES = Path(__file__).parents[1] / "cases"
USUAL = "22/2/6"
OWN_TEST = "27/3/10"  # 30 rows for training, 10 of a file of their own
TWO = ("sea", "tea")
LISTS = ("sea", "tea", "warm")
CUT = "columns cut at "


def read(case: str, folder: Path, **data: Any) -> Corpus:
    for key in ("test", "valid"):
        if key in data:
            data[key] = str(CASES / data[key])
    data.setdefault("labels", {"label": "label"})
    return make_corpus(Data(source=str(CASES / case), **data), str(folder))


def printed(corpus: Corpus) -> str:
    stream = io.StringIO()
    say_corpus(Console(file=stream, width=10_000), corpus)
    return stream.getvalue()


READ: list[tuple[str, dict[str, Any], str, tuple[str, ...], tuple[str, ...]]] = [
    # delimiters
    ("semicolon.csv", {}, USUAL, TWO, (f"semicolon.csv: {CUT}';'",)),
    ("tabs.csv", {}, USUAL, TWO, (f"{CUT}tabs",)),
    ("bar.csv", {}, USUAL, TWO, (f"{CUT}'|'",)),
    ("comma.tsv", {}, USUAL, TWO, (f"{CUT}','",)),
    ("caret.csv", {"delimiter": "^"}, USUAL, TWO, ()),
    ("semicolon.csv", {"delimiter": "semicolon"}, USUAL, TWO, ()),
    ("sep_line.csv", {}, USUAL, TWO, (f"{CUT}';', as its first line says",)),
    ("sep_comma.csv", {}, USUAL, TWO, ()),
    ("quoted_labels.csv", {}, USUAL, ('"sea"', '"tea"'), ("with quotation marks",)),
    # encodings
    ("cp1252.csv", {"encoding": "cp1252"}, USUAL, TWO, ()),
    ("utf16.csv", {}, USUAL, TWO, ("utf16.csv: read as UTF-16",)),
    ("utf16_no_mark.csv", {}, USUAL, TWO, ("read as UTF-16-LE",)),
    ("utf16.json", {}, USUAL, TWO, ("read as UTF-16",)),
    ("cyrillic.csv", {"encoding": "cp1251"}, USUAL, TWO, ()),
    ("LOUD.CSV.GZ", {}, USUAL, TWO, ("LOUD: ",)),
    # JSON
    ("list.json", {}, USUAL, TWO, ()),
    ("list_indented.json", {}, USUAL, TWO, ()),
    ("over_lines.json", {}, USUAL, TWO, ()),
    ("one_line.json", {}, USUAL, TWO, ()),
    # labels
    ("ints.csv", {"test": "floats_test.csv"}, OWN_TEST, ("0", "1"), ("0.0 as 0, 1.0 as 1",)),
    ("floats_test.csv", {"test": "ints.csv"}, "9/1/30", ("0", "1"), ("0.0 as 0, 1.0 as 1",)),
    (
        "true.csv",
        {"test": "true_test.jsonl"},
        OWN_TEST,
        ("false", "true"),
        ("False as false, True as true",),
    ),
    (
        "semicolon.csv",
        {"test": "partly_upper_test.csv"},
        OWN_TEST,
        ("SEA", "TEA", "sea", "tea"),
        ("2 of 4 classes of label are not in train: SEA, TEA; only in how", "SEA from sea"),
    ),
    ("case.csv", {}, USUAL, ("Sea", "Tea", "sea", "tea"), ("Sea and sea; Tea and tea",)),
    ("unicode.csv", {}, USUAL, ("mer à", "thé"), (r"mer a\u0300 as mer à, the\u0301 as thé",)),
    ("zeros.csv", {}, USUAL, ("001", "01", "1"), ()),
    ("versions.csv", {}, USUAL, ("1.0", "1.5", "2.0"), ()),
    ("digits.csv", {}, "9/1/2", ("12", "7" * 4400), ()),
    ("unknown.csv", {}, USUAL, ("sea", "tea", "unknown"), ("in its column `abstained`",)),
    ("decimals.parquet", {}, USUAL, ("0", "1"), ()),
    # several labels a text
    ("lists_python.csv", {"multi": True}, USUAL, LISTS, ()),
    ("lists_json.csv", {"multi": True}, USUAL, LISTS, ()),
    ("lists_numpy.csv", {"multi": True}, USUAL, LISTS, ()),
    ("lists_database.csv", {"multi": True}, USUAL, LISTS, ()),
    ("lists.jsonl", {"multi": True}, USUAL, LISTS, ()),
    ("empty_lists.csv", {"multi": True}, USUAL, LISTS, ()),
    ("empty_cells.csv", {"multi": True, "empty_is_none": True}, USUAL, LISTS, ()),
    ("bars.csv", {"multi": True, "separator": "|"}, USUAL, LISTS, ()),
    (
        "bars.csv",
        {"multi": True},
        USUAL,
        ("sea", "sea|warm", "tea", "tea|warm"),
        ("20 of 30 hold '|'", "data.separator='|'"),
    ),
    # parts of a data set
    (
        "folders",
        {},
        "30/10/10",
        TWO,
        ("files: train: train/part-0.csv; valid: validation/part-0.csv; test: test/part-0.csv",),
    ),
    ("folders/train/part-0.csv", {}, USUAL, TWO, ("folders: 22 train",)),
    ("words", {}, OWN_TEST, TWO, ("files: train: train_data.csv; test: test_data.csv",)),
    ("words/test_data.csv", {}, "7/1/2", TWO, ("is named as held-out rows are",)),
    ("val", {}, "30/10/12", TWO, ("2 of 12 test rows", "they stay; data.drop_leaks=true")),
    ("val", {"drop_leaks": True}, "30/10/10", TWO, ("2 of 12 test rows", "they are left out")),
    ("val", {"test": "val/test.csv"}, "30/10/12", TWO, ("valid: val.csv; test: test.csv",)),
    ("unlabelled", {}, USUAL, TWO, ("have no labels and are left out", "no column 'label'")),
    ("withheld", {}, USUAL, ("0", "1"), ("have no labels but -1",)),
    ("no_train", {"test": "no_train/test.csv"}, OWN_TEST, TWO, ("test: test.csv",)),
    ("no_train", {"split_by_name": False}, "29/3/8", TWO, ("train: replies.csv, test.csv",)),
    ("like_a_split", {}, "29/3/8", TWO, ("train: latest.csv, photo of test tubes.csv",)),
    ("saved", {}, OWN_TEST, TWO, ("files: train: train/data", "test: test/data")),
    ("saved/train", {}, USUAL, TWO, ("saved: 22 train",)),
]


@pytest.mark.parametrize(
    ("case", "data", "rows", "classes", "words"),
    READ,
    ids=[f"{case} {' '.join(data)}".strip() for case, data, *_ in READ],
)
def test_what_is_read_and_said(
    case: str,
    data: dict[str, Any],
    rows: str,
    classes: tuple[str, ...],
    words: tuple[str, ...],
    tmp_path: Path,
) -> None:
    corpus = read(case, tmp_path, **data)
    assert "/".join(str(len(part)) for part in corpus.splits.values()) == rows
    assert set(corpus.tasks[0].classes) == set(classes)
    assert corpus.quarantined is None
    said = printed(corpus)
    for phrase in words:
        assert phrase in said
    if not words:
        usual = ("  source: ", "  files: ", "  test: ", "  valid: ")
        assert all(line.startswith(usual) for line in said.splitlines()[1:])
    for note in corpus.notes.values():
        assert note in said or note == corpus.notes["source"]


def test_the_same_rows_are_the_same_corpus_however_they_are_written(tmp_path: Path) -> None:
    digests = {
        case: read(case, tmp_path).digest
        for case in (
            *("semicolon.csv", "tabs.csv", "bar.csv", "comma.tsv", "sep_line.csv", "list.json"),
            *(
                "list_indented.json",
                "over_lines.json",
                "one_line.json",
                "LOUD.CSV.GZ",
                "folders/train/part-0.csv",
            ),
        )
    }
    assert len(set(digests.values())) == 1, digests
    accented = {
        read("cp1252.csv", tmp_path, encoding="cp1252").digest,
        *(read(c, tmp_path).digest for c in ("utf16.csv", "utf16_no_mark.csv", "utf16.json")),
    }
    assert len(accented) == 1
    assert read("cp1252.csv", tmp_path, encoding="cp1252").train.texts[0].endswith(" à Besançon")
    several = {
        read(f"lists{kind}", tmp_path, multi=True).digest
        for kind in ("_python.csv", "_json.csv", "_numpy.csv", "_database.csv", ".jsonl")
    }
    assert several == {read("bars.csv", tmp_path, multi=True, separator="|").digest}


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("semicolon.csv", {"delimiter": ","}, "no column 'text'; its columns are text;label"),
    ("semicolon.csv", {"text_column": "body"}, "cut at ';', has no column 'body'; its columns are"),
    ("semicolon.csv", {"delimiter": "::"}, "the delimiter '::' can't be used"),
    ("semicolon.csv", {"encoding": "utf-9"}, "there is no encoding 'utf-9'"),
    ("semicolon.csv", {"encoding": "hex"}, "there is no encoding 'hex'"),
    ("title.csv", {}, r"the header seems to be line 3 \(text, label\)"),
    ("no_header.csv", {}, "seems to have no header"),
    ("blank_quote.csv", {}, "the header 2; a blank stands before a quote"),
    ("cp1252.csv", {}, "is not UTF-8 .*; it may be cp1252: say so by --encoding cp1252"),
    ("cyrillic.csv", {}, "is not UTF-8 .*; say which encoding .* such as cp1251"),
    ("gzip_unnamed.csv", {}, r"is a gzip file: let its name end in \.gz"),
    ("cut_off.csv.gz", {}, "can't read .*cut_off"),
    ("pointer.csv", {}, "is a Git LFS pointer"),
    ("under_a_name.json", {}, "its rows are the list under 'replies'"),
    ("columns.json", {}, "holds columns and not rows, .* orient='records', lines=True"),
    ("bare_rows.json", {}, r'not of objects: write one object a row, such as \{"text"'),
    ("list_cut_off.json", {}, "its list is not closed; the file is cut off"),
    ("list_broken.json", {}, "object 1 is not JSON"),
    ("numbers.csv", {}, "30 classes in 30 rows: these look like numbers"),
    ("ids.csv", {}, "30 classes in 30 rows: nearly every row has one of its own"),
    (
        "semicolon.csv",
        {"test": "upper_test.csv"},
        r"test rows \(SEA, TEA\) is among .* \(sea, tea\); only in how it is written differs SEA",
    ),
    ("lists_python.csv", {}, r"holds lists, such as \['sea'\]: say --multi"),
    ("empty_cells.csv", {"multi": True}, "no label in 'label' .*data.empty_is_none=true reads"),
    ("no_train", {}, r"test\.csv looks like test rows, .* say --test-data .*split_by_name=false"),
    ("words", {"test": "ints.csv"}, r"test_data\.csv looks like test rows, but is named as train"),
]


@pytest.mark.parametrize(
    ("case", "data", "sentence"),
    REFUSED,
    ids=[f"{case} {' '.join(data)}".strip() for case, data, _ in REFUSED],
)
def test_what_is_refused_in_one_sentence(
    case: str, data: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence) as refused:
        read(case, tmp_path, **data)
    assert str(refused.value).isprintable()


def test_every_case_is_used() -> None:
    used = {case.split("/")[0] for case, *_ in [*READ, *REFUSED]}
    used |= {str(data[key]) for _, data, *_ in [*READ, *REFUSED] for key in data if key == "test"}
    assert {path.name for path in CASES.iterdir()} <= used
