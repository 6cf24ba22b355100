"""A fine-tuned encoder is chosen and decided by the metric of its tasks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_bert import save_tiny_bert
from torch import nn

from llmembed.cluster import LocalRuntime
from llmembed.contract import Examples, Task
from llmembed.errors import ConfigError
from llmembed.finetuning import FinetuneConfig
from llmembed.finetuning.heads import loss_sum
from llmembed.finetuning.rows import NO_LABEL
from llmembed.methods import load
from llmembed.methods.finetuned.decoder import Decoder
from llmembed.methods.finetuned.encoder import Encoder
from llmembed.metrics.measuring import value

WORDS = ["wake", "me", "play", "at", "five", "six", "am", "queen", "abba", "please"]
INTENT = Task(name="intent", classes=("alarm", "music"), metric="balanced_accuracy")
TAGS = Task(name="tags", classes=("polite", "late"), kind="multi", metric="macro_f1")
SLOTS = Task(name="slots", classes=("O", "B-time", "B-artist"), kind="tokens", metric="macro_f1")


class Heard:
    def __init__(self) -> None:
        self.told: list[dict[str, float]] = []

    def report(self, metrics, *, step):
        self.told.append(dict(metrics))


def examples(count: int, seed: int) -> Examples:
    """Music is rare; nothing tells who is late."""
    rng = np.random.default_rng(seed)
    words, intent, tags, slots = [], [], [], []
    for _ in range(count):
        music, polite = rng.random() < 0.2, rng.random() < 0.4
        if music:
            own, marks = ["play", str(rng.choice(["queen", "abba"]))], [0, 2]
        else:
            own, marks = ["wake", "me", "at", str(rng.choice(["five", "six"]))], [0, 0, 0, 1]
        words.append(own + ["please"] * polite)
        slots += marks + [0] * polite
        intent.append(int(music))
        tags.append([polite, rng.random() < 0.3])
    labels = {
        "intent": np.array(intent),
        "tags": np.array(tags, dtype=bool),
        "slots": np.array(slots),
    }
    return Examples(texts=[" ".join(each) for each in words], labels=labels, words=words)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    return str(save_tiny_bert(tmp_path_factory.mktemp("models") / "tiny-bert", WORDS))


def test_it_is_judged_by_the_metrics_of_its_tasks_and_keeps_its_thresholds(tiny, tmp_path):
    training = FinetuneConfig(
        learning_rate=5e-3,
        epochs=6,
        batch=16,
        precision="fp32",
        class_weights=True,
        focal=1.0,
        calibrate=False,
    )
    heard, valid = Heard(), examples(60, 1)
    fitted = Encoder(model=tiny, training=training).fit(
        [INTENT, TAGS, SLOTS], examples(160, 0), valid, LocalRuntime(tmp_path), heard
    )
    read = [told for told in heard.told if "valid/score" in told]
    names = [f"valid/{t.name}/{t.metric}" for t in (INTENT, TAGS, SLOTS)]
    for told in read:
        assert told["valid/score"] == pytest.approx(np.mean([told[name] for name in names]))
    best = max(read, key=lambda told: told["valid/score"])
    answers = fitted.predict(valid.texts)
    for task, name in zip(fitted.tasks, names, strict=True):
        worth = value(task, valid.labels[task.name], answers[task.name])
        assert worth == pytest.approx(best[name]), task.name
    thresholds = dict(zip(TAGS.classes, fitted.tasks[1].thresholds, strict=True))
    assert thresholds["late"] < 0.5  # as nothing tells it, F1 is best where it is often said
    assert fitted.tasks[0] == INTENT and fitted.tasks[2] == SLOTS
    fitted.save(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert again.tasks == fitted.tasks
    told = again.predict(valid.texts)["tags"].labels
    assert np.array_equal(told, answers["tags"].labels)


def test_the_loss_of_a_batch_is_torchs_and_focal_by_hand():
    torch.manual_seed(0)
    logits, truth = torch.randn(4, 3, 3), torch.randint(0, 3, (4, 3))
    truth[0, 1] = NO_LABEL
    weights = torch.tensor([0.5, 1.0, 2.0])
    known = truth.flatten() != NO_LABEL
    flat, own = logits.reshape(-1, 3)[known], truth.flatten()[known]
    each = nn.functional.cross_entropy(flat, own, weights, reduction="none")
    given = flat.softmax(1)[torch.arange(len(own)), own]
    plain = nn.functional.cross_entropy(flat, own, reduction="sum")
    assert loss_sum(SLOTS, logits, truth).item() == pytest.approx(plain.item())
    weighted = loss_sum(SLOTS, logits, truth, weights=weights)
    assert weighted.item() == pytest.approx(each.sum().item(), rel=1e-5)
    focal = loss_sum(SLOTS, logits, truth, weights=weights, focal=2.0)
    assert focal.item() == pytest.approx((each * (1 - given) ** 2).sum().item(), rel=1e-5)
    cells, yes = torch.randn(5, 2), (torch.rand(5, 2) < 0.5).float()
    each = nn.functional.binary_cross_entropy_with_logits(cells, yes, reduction="none")
    missed = (cells.sigmoid() - yes).abs()
    focal = loss_sum(TAGS, cells, yes, focal=2.0)
    assert focal.item() == pytest.approx((each * missed**2).mean(1).sum().item(), rel=1e-5)


@pytest.mark.parametrize("changes", [{"class_weights": True}, {"focal": 2.0}])
def test_a_decoder_has_no_classes_to_weigh(changes):
    training = replace(FinetuneConfig.decoder(), **changes)
    with pytest.raises(ConfigError, match=f"training.{next(iter(changes))} is for encoders"):
        Decoder(model="any", training=training)
