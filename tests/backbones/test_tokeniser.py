"""Windows, cuts and templates; what is counted; the way through Arrow."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from tiny_models import make_text
from transformers import AutoTokenizer

from llmembed.backbones import TokenisedBatch, Tokeniser, resolve
from llmembed.errors import ModelError

LONG, SHORT = make_text(60), "oil prices"


def tokenise(folder, texts, **settings) -> TokenisedBatch:
    return Tokeniser(resolve(str(folder), **settings))(texts)


@pytest.mark.parametrize("kind", ["bert", "roberta", "llama"])
def test_short_texts_are_what_the_tokenizer_gives(tiny, kind):
    own = AutoTokenizer.from_pretrained(tiny(kind))
    texts = [SHORT, "", make_text(9)]
    batch = tokenise(tiny(kind), texts)
    assert [batch.window(place).tolist() for place in range(3)] == own(texts)["input_ids"]
    assert (batch.kept == batch.full).all()


def test_cut_keeps_the_start_and_the_special_tokens(tiny):
    own = AutoTokenizer.from_pretrained(tiny("bert"))
    batch = tokenise(tiny("bert"), [LONG, SHORT], max_tokens=16)
    whole = own(LONG)["input_ids"]
    assert batch.window(0).tolist() == [*whole[:15], whole[-1]]
    assert batch.window(0).tolist() == own(LONG, truncation=True, max_length=16)["input_ids"]
    assert batch.kept.tolist() == [16, len(own(SHORT)["input_ids"])]
    assert batch.full[0] == len(whole)


def test_head_tail_keeps_both_ends(tiny):
    whole = AutoTokenizer.from_pretrained(tiny("bert"))(LONG)["input_ids"]
    batch = tokenise(tiny("bert"), [LONG], max_tokens=18, long_texts="head_tail")
    # 16 places between the special tokens: a quarter for the start.
    assert batch.window(0).tolist() == [*whole[:5], *whole[-13:]]
    assert batch.kept.tolist() == [18]


def test_windows_hold_every_token_once(tiny):
    whole = AutoTokenizer.from_pretrained(tiny("bert"))(LONG)["input_ids"]
    batch = tokenise(tiny("bert"), [SHORT, LONG, ""], max_tokens=10, long_texts="windows")
    windows = [batch.window(w) for w in range(batch.text_starts[1], batch.text_starts[2])]
    assert len(windows) > 3
    assert all(len(w) <= 10 and w[0] == whole[0] and w[-1] == whole[-1] for w in windows)
    assert np.concatenate([w[1:-1] for w in windows]).tolist() == whole[1:-1]
    assert batch.kept.tolist() == batch.full.tolist()


def test_a_template_stays_whole_around_a_cut_text(tiny):
    own = AutoTokenizer.from_pretrained(tiny("llama"))
    template = "the company: {text} means"
    batch = tokenise(tiny("llama"), [LONG], max_tokens=32, template=template)
    kept = own.decode(batch.window(0), skip_special_tokens=True)
    assert len(batch.window(0)) == 32
    assert kept.startswith("the company:")
    assert kept.endswith(" means")


@pytest.mark.parametrize("template", ["the company:{text}means", "gran{text} fell", "{text}s rose"])
def test_a_template_whose_edges_join_the_text_stays_whole(tiny, template):
    own = AutoTokenizer.from_pretrained(tiny("llama"))
    before, after = template.split("{text}")
    batch = tokenise(tiny("llama"), [LONG], max_tokens=32, template=template, long_texts="windows")
    pieces = [
        own.decode(batch.window(place), skip_special_tokens=True)
        for place in range(len(batch.window_lengths))
    ]
    assert len(pieces) > 1
    assert all(len(batch.window(place)) <= 32 for place in range(len(pieces)))
    assert all(piece.startswith(before) and piece.endswith(after) for piece in pieces)


def test_a_template_that_leaves_no_room_is_refused(tiny):
    with pytest.raises(ModelError, match="the template alone fills"):
        tokenise(tiny("bert"), [SHORT], max_tokens=8, template=f"{LONG} {{text}}")


def test_the_batch_independent_of_its_neighbours(tiny):
    tokeniser = Tokeniser(resolve(str(tiny("bert")), max_tokens=16))
    together = tokeniser([LONG, SHORT, "", LONG])
    for place, text in enumerate([LONG, SHORT, "", LONG]):
        assert tokeniser([text]).window(0).tolist() == together.window(place).tolist()


def test_there_and_back_through_arrow(tiny):
    batch = tokenise(tiny("bert"), [SHORT, LONG, ""], max_tokens=10, long_texts="windows")
    table = pa.table({"key": ["a", "b", "c"], **batch.to_arrow()})
    again = TokenisedBatch.from_arrow(table)
    for name in ("ids", "window_starts", "text_starts", "kept", "full"):
        assert np.array_equal(getattr(again, name), getattr(batch, name)), name
    # A slice, rows of several chunks, and none.
    part = TokenisedBatch.from_arrow(pa.concat_tables([table.slice(1, 1), table.slice(0, 1)]))
    assert part.window(0).tolist() == batch.window(1).tolist()
    assert part.window(len(part.window_lengths) - 1).tolist() == batch.window(0).tolist()
    assert len(TokenisedBatch.from_arrow(table.slice(0, 0))) == 0
    assert len(TokenisedBatch.from_arrow(table.schema.empty_table())) == 0


def test_a_changed_tokenizer_is_refused(tiny, tmp_path):
    import shutil

    shutil.copytree(tiny("bert"), tmp_path / "model")
    spec = resolve(str(tmp_path / "model"))
    with (tmp_path / "model" / "tokenizer_config.json").open("a") as file:
        file.write("\n")
    with pytest.raises(ModelError, match="changed or damaged"):
        Tokeniser(spec)
