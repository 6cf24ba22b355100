from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from llmembed.errors import DataError, ModelError
from llmembed.fusion.lexical import LexicalView

TOPICS = ("ship cargo port sea", "wheat corn grain harvest", "profit quarter dividend share")


def _texts(count: int = 90) -> list[str]:
    rng = np.random.default_rng(0)
    return [
        " ".join(rng.choice(f"{TOPICS[i % 3]} the of and".split(), size=12)) for i in range(count)
    ]


def test_the_view_is_tfidf_reduced_by_svd():
    texts = _texts()
    view = LexicalView(width=5, seed=3).fit(texts)
    counted = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2).fit_transform(texts)
    expected = TruncatedSVD(5, random_state=0, n_iter=20).fit_transform(counted)
    ours = view.transform(texts)[:, 0]
    # singular vectors are fixed up to their sign, so inner products are compared
    np.testing.assert_allclose(ours @ ours.T, expected @ expected.T, atol=0.02)


def test_shape_and_type_and_repeatability():
    texts = _texts()
    first = LexicalView(width=8, seed=1).fit(texts).transform(texts)
    again = LexicalView(width=8, seed=1).fit(texts).transform(texts)
    assert first.shape == (90, 1, 8)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, again)


def test_texts_of_one_topic_are_nearer_to_each_other():
    texts = _texts()
    rows = LexicalView(width=8).fit(texts).transform(texts)[:, 0]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    near = rows @ rows.T
    same = np.arange(90)[:, None] % 3 == np.arange(90) % 3
    assert near[same].mean() > near[~same].mean() + 0.3


def test_a_saved_view_answers_the_same(tmp_path):
    texts = _texts()
    view = LexicalView(width=6).fit(texts)
    view.save(tmp_path / "lexical")
    loaded = LexicalView.load(tmp_path / "lexical")
    unseen = [*texts[:5], "grain ship unheard words", "", "ship\nship SHIP"]
    np.testing.assert_array_equal(loaded.transform(unseen), view.transform(unseen))
    assert loaded.transform([""]).sum() == 0
    assert {path.suffix for path in (tmp_path / "lexical").iterdir()} == {".json", ".safetensors"}


def test_fewer_texts_than_width_give_a_narrower_view():
    view = LexicalView(width=50).fit(["ship port", "ship sea", "corn grain"])
    assert view.transform(["ship"]).shape == (1, 1, view.width)
    assert view.width <= 3


def test_no_texts_to_transform():
    assert LexicalView(width=4).fit(_texts()).transform([]).shape == (0, 1, 4)


def test_texts_without_words_are_refused():
    with pytest.raises(DataError, match="no words"):
        LexicalView(width=4).fit(["", "  ", "?"])


def test_an_unfitted_view_is_refused(tmp_path):
    with pytest.raises(DataError, match="not fitted"):
        LexicalView(width=4).transform(["a"])
    with pytest.raises(DataError, match="not fitted"):
        LexicalView(width=4).save(tmp_path)


def test_a_broken_folder_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"no readable lexical view in .*nowhere"):
        LexicalView.load(tmp_path / "nowhere")
    LexicalView(width=4).fit(_texts()).save(tmp_path)
    (tmp_path / "lexical.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(ModelError):
        LexicalView.load(tmp_path)
