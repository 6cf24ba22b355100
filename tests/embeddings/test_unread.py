"""One text without a finite vector: set aside and told, up to a share; it gets no answer."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bert import WORDS, make_texts, save_tiny_bert

from llmembed.backbones import Read, Tokeniser, View, resolve
from llmembed.cluster import LocalRuntime
from llmembed.contract import Examples, Silent, Task
from llmembed.embeddings import embed
from llmembed.embeddings.keys import keys_of, to_bytes
from llmembed.embeddings.stages import set_aside
from llmembed.embeddings.words import FEWEST, check_words
from llmembed.errors import ModelError
from llmembed.methods.frozen.probe import Probe

FILLERS = [f"word{i:03}" for i in range(200)]
TEXTS = make_texts(150)


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    """A model whose embedding of one word is not a number, and that word."""
    import torch
    from transformers import AutoModel

    folder = save_tiny_bert(tmp_path_factory.mktemp("model") / "tiny", [*WORDS, *FILLERS])
    tokeniser = Tokeniser(resolve(str(folder), dtype="float32"))
    known = tokeniser.tokenizer.get_vocab()
    tried = {*tokeniser.probe().ids.tolist()}
    word = next(word for word in FILLERS if known[word] not in tried)
    model = AutoModel.from_pretrained(folder)
    with torch.no_grad():
        model.get_input_embeddings().weight[known[word]] = torch.nan
    model.save_pretrained(folder)
    return resolve(str(folder), reads="mean:1-2", dtype="float32"), word


def test_it_stands_as_zeros_and_is_told_however_often_it_is_read(
    tmp_path: Path, poisoned: Any, caplog: pytest.LogCaptureFixture
) -> None:
    spec, word = poisoned
    bad = f"the oil {word} rose"
    texts = [*TEXTS[:70], bad, *TEXTS[70:]]
    for computed in (len(texts), 0):  # now, and from the store
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            got = embed(spec, texts, LocalRuntime(tmp_path), part_rows=64)
        assert (got.computed, got.unread) == (computed, (70,))
        assert not got.vectors[70].any() and got.tokens[70] == 0
        assert np.isfinite(got.vectors).all() and got.tokens[:70].all()
        told = " ".join(record.getMessage() for record in caplog.records)
        key = to_bytes(keys_of([bad])).hex()
        assert f"1 of 151 texts have no finite vector of {spec.label}, first row 70" in told
        assert repr(bad) in told and key in told and "dtype to float32" in told
        assert "1 without a finite vector" in got.summary()


def test_too_many_are_an_error(tmp_path: Path, poisoned: Any) -> None:
    spec, word = poisoned
    with pytest.raises(ModelError, match=r"2 of 152 texts have no finite vector.* at most 1% are"):
        embed(spec, [*TEXTS, word, f"oil {word}"], LocalRuntime(tmp_path))


def test_where_no_text_of_several_has_one_the_worker_gives_up() -> None:
    vectors = np.full((2, 3, 4), np.nan, dtype=np.float32)
    with pytest.raises(ModelError, match="all of 2 texts; try another dtype, for example float32"):
        set_aside(vectors, np.array([5, 6]), "model")
    vectors[0] = 1
    assert set_aside(vectors, np.array([5, 6]), "model").tolist() == [5, 0]
    assert not vectors[1].any() and vectors[0].all()


def test_it_gets_no_answer_here_or_from_the_store(tmp_path: Path, poisoned: Any) -> None:
    spec, word = poisoned
    runtime = LocalRuntime(tmp_path)
    task = Task(name="label", kind="single", classes=("even", "odd"))
    labels = {"label": np.arange(100) % 2}
    part = Examples(texts=TEXTS[:100], labels=labels)
    view = View(backbone=spec, reads=(Read(depth=1),))
    probe = Probe(name="probe", view=view, inverse_penalties=(1.0,))
    classifier = probe.fit((task,), part, part, runtime, Silent())
    asked = [*TEXTS[:120], word]
    for where in (None, runtime):
        answer = classifier.predict(asked, where)["label"]
        assert answer.invalid.nonzero()[0].tolist() == [120]
        assert answer.labels[120] == -1 and set(answer.labels[:120]) <= {0, 1}
        assert answer.scores is not None and not answer.scores[120].any()


def test_a_tokenizer_that_knows_none_of_the_words(tmp_path: Path, tiny_spec: Any) -> None:
    strange = [f"unbekannt{i} kaufhaus" for i in range(FEWEST)]
    with pytest.raises(ModelError, match=r"100% of the tokens .* are '\[UNK\]'"):
        embed(tiny_spec, strange, LocalRuntime(tmp_path))
    check_words(tiny_spec, strange[:-1])  # too few to tell
    check_words(tiny_spec, [*strange, *TEXTS])
