"""A checkpoint or model that the disk has no room for is one sentence."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from small_disk import small_disk
from tiny_bert import make_texts, save_tiny_bert

from llmembed.cluster import LocalRuntime
from llmembed.contract import Examples, Task
from llmembed.errors import StoreError
from llmembed.finetuning import FinetuneConfig
from llmembed.finetuning.places import source_of
from llmembed.finetuning.worker import EncoderWork

PARAMETERS_AT_LEAST = 17_000  # of the tiny BERT: two blocks of width 32


@pytest.mark.parametrize(
    ("settings", "what"),
    [({"keep": "last", "checkpoint_steps": 1}, "a checkpoint"), ({"keep": "last"}, "the model so")],
)
def test_training_ends_in_one_sentence(settings, what, tmp_path: Path, monkeypatch) -> None:
    task = Task(name="label", kind="single", classes=("even", "odd"))
    part = Examples(texts=make_texts(16), labels={"label": np.arange(16) % 2})
    work = EncoderWork(
        source=source_of(str(save_tiny_bert(tmp_path / "tiny"))),
        tasks=(task,),
        train=part,
        valid=part,
        config=FinetuneConfig(
            max_steps=2, batch=8, precision="fp32", patience=None, log_steps=1, **settings
        ),
    )
    with small_disk(tmp_path / "small", 2 * PARAMETERS_AT_LEAST) as place:
        monkeypatch.setattr(tempfile, "tempdir", str(place))
        with pytest.raises(StoreError, match=rf"{what}.* takes [\d,]+ bytes in .* set TMPDIR to"):
            LocalRuntime(tmp_path / "files").train(work)
