"""What is the name of a registered model, and what can't be."""

from __future__ import annotations

import pytest

from llmembed.errors import ModelError
from llmembed.pipelines.models import REGISTERED, find_classifier


@pytest.mark.parametrize(
    ("model", "name", "alias", "version"),
    [
        ("news", "news", None, None),
        ("models:/news@champion", "news", "champion", None),
        ("news/12", "news", None, "12"),
        ("größe-1.b_c", "größe-1.b_c", None, None),
    ],
)
def test_names_are_read(model, name, alias, version):
    found = REGISTERED.match(model)
    assert (found["name"], found["alias"], found["version"]) == (name, alias, version)


@pytest.mark.parametrize(
    "model",
    [
        "news\n",
        "ne\nws",
        "news@champ\nion",
        "news@champion\n",
        "news/3\n",
        "a b",
        "a@b c",
        "",
        "a/b",
    ],
)
def test_names_of_several_lines_or_words_are_none(model, tmp_path):
    assert REGISTERED.match(model) is None
    if model:
        with pytest.raises(ModelError) as refused:
            find_classifier(model, files=str(tmp_path))
        assert "\n" not in str(refused.value)
