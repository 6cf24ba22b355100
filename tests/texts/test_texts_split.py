"""The held-out rows: by label, by text, by seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmembed.contract import Examples, Task
from llmembed.errors import ConfigError
from llmembed.texts import Columns, Corpus, CorpusSource, load_corpus
from llmembed.texts.facts import hold_out_rows, strata_of
from llmembed.texts.split import hold_out


def case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(20, 400))
    groups = rng.integers(0, rows, rows)
    strata = rng.geometric(0.3, rows)
    return groups, strata


@pytest.mark.parametrize("seed", range(25))
def test_what_must_hold_of_any_split(seed: int) -> None:
    groups, strata = case(seed)
    kept, held = hold_out(groups, strata, fraction=0.2, seed=seed)
    assert sorted([*kept, *held]) == list(range(len(groups)))
    assert not set(groups[kept]) & set(groups[held])
    first = {group: strata[np.flatnonzero(groups == group)[0]] for group in set(groups)}
    assert {first[group] for group in groups[kept]} == set(first.values())
    again = hold_out(groups, strata, fraction=0.2, seed=seed)
    assert again[0].tolist() == kept.tolist() and again[1].tolist() == held.tolist()


def test_each_class_gives_its_share_and_a_lone_row_stays() -> None:
    strata = np.repeat([0, 1, 2, 3], [500, 300, 199, 1])
    kept, held = hold_out(np.arange(1000), strata, fraction=0.1, seed=3)
    assert np.bincount(strata[held], minlength=4).tolist() == [50, 30, 20, 0]
    assert 999 in kept
    other = hold_out(np.arange(1000), strata, fraction=0.1, seed=4)[1]
    assert other.tolist() != held.tolist()


def test_several_tasks_give_their_share() -> None:
    rng = np.random.default_rng(0)
    labels = {f"task{n}": rng.integers(0, 20, 5000) for n in range(4)}
    tasks = [Task(name=name, classes=tuple(map(str, range(20)))) for name in labels]
    examples = Examples(texts=[f"t{i}" for i in range(5000)], labels=labels)
    held = hold_out_rows(examples, np.arange(5000), tasks, fraction=0.1, seed=0, what="validation")[
        1
    ]
    assert len(held) == 500
    shares = np.bincount(labels["task0"][held]) / np.bincount(labels["task0"])
    assert shares.min() > 0.09 and shares.max() < 0.11


def test_combinations_that_are_common_keep_their_own_share() -> None:
    labels = {"a": np.repeat([0, 0, 1, 1], 100), "b": np.tile(np.repeat([0, 1], 100), 2)}
    labels["b"][:5] = np.arange(2, 7)
    tasks = [Task(name=name, classes=tuple(map(str, range(7)))) for name in labels]
    strata = strata_of(Examples(texts=[""] * 400, labels=labels), tasks, fraction=0.1)
    assert len(set(strata)) == 5
    assert len(set(strata[:5])) == 1 and strata[5] != strata[0]


def test_a_group_too_large_for_its_share_is_passed_over() -> None:
    groups = np.concatenate([np.repeat(np.arange(5), 50), np.arange(5, 105)])
    for seed in range(10):
        held = hold_out(groups, np.zeros(350, dtype=int), fraction=0.1, seed=seed)[1]
        assert len(held) == 35 and groups[held].min() >= 5


def load(path: Path, seed: int = 0, test_fraction: float = 0.0, **more: object) -> Corpus:
    source = CorpusSource.files(path, columns=Columns(), test_fraction=test_fraction)
    return load_corpus(source, seed=seed, quarantine_folder=path.parent / "q", **more)  # type: ignore[arg-type]


def rows_file(path: Path) -> Path:
    rows = [f"text {i // 2 if i < 100 else i},{'abc'[i % 3]}" for i in range(600)]
    path.write_text("\n".join(["text,label", *rows]) + "\n")
    return path


def test_a_text_that_occurs_twice_stays_on_one_side(tmp_path: Path) -> None:
    corpus = load(rows_file(tmp_path / "rows.csv"), test_fraction=0.2)
    assert corpus.test is not None
    train, valid, test = (set(part.texts) for part in (corpus.train, corpus.valid, corpus.test))
    assert not train & valid and not train & test and not valid & test
    assert len(corpus.train) + len(corpus.valid) + len(corpus.test) == 600
    assert "repeated" in corpus.notes and "leak_test" not in corpus.notes
    assert corpus.notes["conflicts_label"].startswith("50 distinct texts")


def test_the_seed_moves_validation_and_never_test(tmp_path: Path) -> None:
    path = rows_file(tmp_path / "rows.csv")
    one, same, other = (load(path, seed, test_fraction=0.2) for seed in (1, 1, 2))
    assert one.digest == same.digest != other.digest
    assert list(one.valid.texts) == list(same.valid.texts) != list(other.valid.texts)
    assert one.test is not None and other.test is not None
    assert list(one.test.texts) == list(other.test.texts)


def test_digest_sees_a_changed_text_and_a_changed_label(tmp_path: Path) -> None:
    path = rows_file(tmp_path / "rows.csv")
    before = load(path).digest
    content = path.read_text()
    path.write_text(content.replace("text 599", "text 598b"))
    assert load(path).digest != before
    path.write_text(content.replace("text 599,c", "text 599,b"))
    assert load(path).digest != before
    path.write_text(content)
    assert load(path).digest == before


def test_labels_only_in_test_are_kept_and_named(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(
        "text,label\n" + "".join(f"x{i},{'ab'[i % 2]}\n" for i in range(50))
    )
    (tmp_path / "test.csv").write_text("text,label\ny,a\nz,new\nx3,b\n")
    corpus = load(tmp_path)
    assert corpus.tasks[0].classes == ("a", "b", "new")
    assert corpus.test is not None and corpus.test.labels["label"].tolist() == [0, 2, 1]
    assert corpus.notes["unseen_label"] == "1 of 3 classes of label is not in train: new"
    assert corpus.notes["leak_test"].startswith("1 of 3 test rows")


def test_multi_labels_are_stratified_by_their_rarest(tmp_path: Path) -> None:
    rows = ["often;rare" if i % 50 == 0 else "often" for i in range(1000)]
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"t{i},{c}\n" for i, c in enumerate(rows)))
    source = CorpusSource.files(path, columns=Columns(kinds={"label": "multi"}, separator=";"))
    corpus = load_corpus(source, quarantine_folder=tmp_path / "q", valid_fraction=0.1)
    assert corpus.valid.labels["label"].sum(axis=0).tolist() == [100, 2]


def test_fractions_out_of_range(tmp_path: Path) -> None:
    path = rows_file(tmp_path / "rows.csv")
    with pytest.raises(ConfigError, match="valid_fraction is 0"):
        load(path, valid_fraction=0)
    with pytest.raises(ConfigError, match="test_fraction is 1"):
        load(path, test_fraction=1.5)
