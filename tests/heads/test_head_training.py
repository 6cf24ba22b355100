from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from llmembed.contract import Task
from llmembed.errors import CollapseError, ConfigError, DataError, ModelError, UnsupportedError
from llmembed.fusion import build_fusion
from llmembed.heads import HeadConfig
from llmembed.heads.judging import raise_on_collapse
from llmembed.heads.trained import TrainedHead
from llmembed.heads.training import train_head

SHAPES = {"L": (3, 12), "B": (1, 8), "R": (1, 8)}
TOPIC = Task(name="topic", classes=("a", "b", "c", "d"))
TAGS = Task(name="tags", classes=("x", "y", "z"), kind="multi")
QUICK = HeadConfig(widths=(32,), epochs=12, patience=None, batch=32, dropout=0.1)


class Heard:
    def __init__(self):
        self.steps = []

    def report(self, metrics, *, step):
        self.steps.append((step, dict(metrics)))


def _rows(count, seed, *, noise=1.0, scale=1.0):
    """Views around a centre for each class; tags are the signs of three directions."""
    rng = np.random.default_rng(seed)
    fixed = np.random.default_rng(99)
    topic = rng.integers(0, 4, count)
    hidden = fixed.normal(size=(4, 6))[topic] * 1.5 + rng.normal(size=(count, 6)) * noise
    views = {
        name: (hidden @ fixed.normal(size=(6, depths * width)))
        .reshape(count, depths, width)
        .astype(np.float32)
        * scale
        for name, (depths, width) in SHAPES.items()
    }
    tags = hidden @ fixed.normal(size=(6, 3)) > 0
    return views, {"topic": topic.astype(np.int64), "tags": tags}


@pytest.fixture(scope="module")
def rows():
    return _rows(400, 0), _rows(200, 1)


def _train(rows, fusion="concat_b", tasks=(TOPIC,), config=QUICK, settings=None, **kwargs):
    (views, labels), (valid_views, valid_labels) = rows
    return train_head(
        build_fusion(fusion, SHAPES, **(settings or {})),
        views,
        labels,
        tasks,
        valid_views=valid_views,
        valid_labels=valid_labels,
        config=config,
        **{"device": "cpu", "threads": 1, **kwargs},
    )


def test_a_head_does_not_lose_to_logistic_regression(rows):
    train, valid = _rows(600, 0, noise=2.0), _rows(600, 1, noise=2.0)
    test_views, test_labels = _rows(2000, 2, noise=2.0)

    def flat(views):
        return np.concatenate([views["L"].reshape(len(views["L"]), -1), views["B"][:, 0]], 1)

    scaler = StandardScaler().fit(flat(train[0]))
    regression = LogisticRegression(C=0.1, max_iter=500)
    regression.fit(scaler.transform(flat(train[0])), train[1]["topic"])
    other = regression.score(scaler.transform(flat(test_views)), test_labels["topic"])
    for kind in ("mlp", "linear"):
        head = _train((train, valid), config=HeadConfig(kind=kind))
        ours = (head.scores(test_views)["topic"].argmax(1) == test_labels["topic"]).mean()
        error = np.sqrt(other * (1 - other) / len(test_views["L"]))
        assert ours > other - 1.5 * error


@pytest.mark.parametrize("fusion", ["avg", "co_avg"])
def test_two_kinds_of_task_share_one_fusion(rows, fusion):
    heard = Heard()
    head = _train(
        rows,
        fusion,
        tasks=(TOPIC, TAGS),
        settings={"width": 6},
        config=HeadConfig(widths=(32,), epochs=25, patience=None, batch=32, dropout=0.1),
        reporter=heard,
    )
    views, labels = rows[1]
    scores = head.scores(views)
    assert scores["topic"].shape == (200, 4)
    assert scores["topic"].dtype == np.float32
    np.testing.assert_allclose(scores["topic"].sum(1), 1, atol=1e-5)
    assert ((scores["tags"] >= 0) & (scores["tags"] <= 1)).all()
    assert (scores["topic"].argmax(1) == labels["topic"]).mean() > 0.85
    assert ((scores["tags"] > 0.5) == labels["tags"]).mean() > 0.8
    assert [step for step, _ in heard.steps] == list(range(1, 26))
    first, last = heard.steps[0][1], heard.steps[-1][1]
    assert last["train_loss"] < first["train_loss"]
    mean = (last["valid_accuracy/topic"] + last["valid_accuracy/tags"]) / 2
    assert last["valid_accuracy"] == pytest.approx(mean)


def test_the_same_seed_gives_the_same_weights(rows):
    first = _train(rows, "co", settings={"width": 6})
    torch.manual_seed(8)  # the caller's state, which the maps were drawn from, must not matter
    second = _train(rows, "co", settings={"width": 6})
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    other = HeadConfig.from_json({**QUICK.to_json(), "seed": 1})
    third = _train(rows, "co", settings={"width": 6}, config=other)
    views = rows[1][0]
    assert not np.array_equal(first.scores(views)["topic"], third.scores(views)["topic"])


def test_torch_is_left_as_it_was(rows):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    _train(rows, "avg", threads=threads + 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_early_stopping_restores_the_best_epoch(rows):
    heard = Heard()
    config = HeadConfig(widths=(64,), epochs=60, patience=3, learning_rate=0.03, batch=16)
    head = _train(rows, config=config, reporter=heard)
    seen = [metrics["valid_accuracy"] for _, metrics in heard.steps]
    assert head.epochs == len(seen) < 60
    views, labels = rows[1]
    accuracy = (head.scores(views)["topic"].argmax(1) == labels["topic"]).mean()
    assert accuracy == pytest.approx(max(seen))
    assert head.metrics["valid_accuracy"] == pytest.approx(accuracy)
    assert max(seen) > min(seen)


@pytest.mark.parametrize("fusion", ["concat_b_r", "co_avg"])
def test_saved_and_loaded_scores_are_equal(rows, tmp_path, fusion):
    head = _train(rows, fusion, tasks=(TOPIC, TAGS), settings={"width": 5, "sigma": 0.7})
    head.save(tmp_path / "head")
    loaded = TrainedHead.load(tmp_path / "head", build_fusion)
    views = rows[1][0]
    for name, scores in head.scores(views).items():
        np.testing.assert_array_equal(loaded.scores(views)[name], scores)
    assert loaded.tasks == head.tasks
    assert loaded.config == head.config
    assert loaded.parameters_trained == head.parameters_trained
    assert {p.name for p in (tmp_path / "head").iterdir()} == {"head.safetensors", "head.json"}
    assert json.loads((tmp_path / "head" / "head.json").read_text())["fusion"]["name"] == fusion


def test_a_broken_folder_is_named(rows, tmp_path):
    with pytest.raises(ModelError, match="no readable head"):
        TrainedHead.load(tmp_path, build_fusion)
    _train(rows).save(tmp_path)
    (tmp_path / "head.safetensors").write_bytes(b"{}")
    with pytest.raises(ModelError, match="no readable head"):
        TrainedHead.load(tmp_path, build_fusion)


def test_inputs_are_standardised_by_the_training_rows(rows):
    (views, _), _ = rows
    head = _train(rows, "concat_b_r")
    features = head.features(views)
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(features.std(0), 1, atol=1e-3)
    raw = _train(rows, "concat", config=HeadConfig.paper(epochs=40, learning_rate=3e-3))
    np.testing.assert_allclose(raw.features(views), views["L"].reshape(400, -1), atol=1e-6)


def test_the_scale_of_a_view_does_not_matter(rows):
    far = tuple(({**views, "L": views["L"] * 1e3 + 500}, labels) for views, labels in rows)
    near = _train(rows).metrics["valid_accuracy"]
    assert _train(far).metrics["valid_accuracy"] == pytest.approx(near, abs=0.02)


@pytest.mark.parametrize("fusion", ["concat", "co_avg"])
def test_streaming_from_memory_maps_equals_keeping_everything(rows, tmp_path, fusion):
    (views, labels), valid = rows
    mapped = {}
    for name, view in views.items():
        np.save(tmp_path / f"{name}.npy", view)
        mapped[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    settings = {"width": 6}
    kept = _train(rows, fusion, settings=settings, resident=True)
    streamed = _train(((mapped, labels), valid), fusion, settings=settings, resident=False)
    np.testing.assert_allclose(
        kept.scores(views)["topic"], streamed.scores(views)["topic"], atol=0.02
    )


def test_logits_go_into_the_cross_entropy(rows):
    """With a softmax in between, the training loss could not fall below 0.744 for four classes."""
    heard = Heard()
    _train(
        rows,
        reporter=heard,
        config=HeadConfig(epochs=25, patience=None, dropout=0.0, label_smoothing=0.0),
    )
    assert heard.steps[-1][1]["train_loss"] < 0.3


def test_class_weights_lift_the_rare_class():
    train, valid = _rows(800, 0, noise=4.0), _rows(400, 1, noise=4.0)
    rng = np.random.default_rng(0)

    def thinned(rows):
        views, labels = rows
        keep = (labels["topic"] != 3) | (rng.random(len(labels["topic"])) < 0.1)
        return {n: v[keep] for n, v in views.items()}, {n: v[keep] for n, v in labels.items()}

    both = thinned(train), thinned(valid)
    test_views, _ = _rows(1000, 2, noise=4.0)
    share = [
        (
            _train(
                both,
                config=HeadConfig(kind="linear", epochs=15, patience=None, class_weights=weighted),
            )
            .scores(test_views)["topic"]
            .argmax(1)
            == 3
        ).mean()
        for weighted in (False, True)
    ]
    assert share[1] > share[0] + 0.03


def test_one_answer_to_few_texts_or_caution_is_no_collapse():
    single = [Task(name="t", classes=("a", "b"))]
    same, truth = torch.tensor([[1.0, 0.0]]), torch.arange(30) % 2
    raise_on_collapse(single, [same.expand(19, 2)], {"t": truth[:19]})
    with pytest.raises(CollapseError, match="answers 'a'"):
        raise_on_collapse(single, [same.expand(20, 2)], {"t": truth[:20]})
    several = [Task(name="t", classes=("a", "b"), kind="multi")]
    labels = {"t": torch.stack([truth, 1 - truth], dim=1).float()}
    raise_on_collapse(several, [-same.expand(30, 2)], labels)
    with pytest.raises(CollapseError, match="the same classes"):
        raise_on_collapse(several, [same.expand(30, 2)], labels)


def test_a_collapsed_fit_is_reported(rows):
    (views, labels), valid = rows
    skewed = {**labels, "topic": np.zeros(400, np.int64)}
    with pytest.raises(CollapseError, match="answers 'a' to every validation text"):
        _train(((views, skewed), valid))


def test_a_loss_that_is_not_finite_is_named(rows):
    config = HeadConfig(epochs=5, learning_rate=900.0, inputs="none", widths=(64, 64, 64))
    wild = tuple(({n: v * 1e30 for n, v in views.items()}, labels) for views, labels in rows)
    with pytest.raises(ConfigError, match=r"loss is (nan|inf) in epoch \d+: lower the learning"):
        _train(wild, config=config)


def _without(mapping, name):
    return {key: value for key, value in mapping.items() if key != name}


def test_views_and_labels_that_do_not_fit_are_refused(rows):
    (views, labels), valid = rows
    spoilt = {**views, "L": views["L"].copy()}
    spoilt["L"][3, 0, 0] = np.nan
    cases = [
        (_without(views, "B"), labels, "lack 'B'"),
        ({**views, "L": views["L"][:, :2]}, labels, r"\(400, 2, 12\).*expected \(texts, 3, 12\)"),
        ({**views, "L": views["L"][:9]}, labels, "different numbers of rows"),
        (spoilt, labels, "'L' holds values that are not finite"),
        (views, _without(labels, "topic"), "lack the task 'topic'"),
        (views, {"topic": labels["topic"][:9]}, r"shape \(9,\): expected \(400,\)"),
        (views, {"topic": labels["topic"] + 1}, "reach from 1 to 4: expected 0 to 3"),
    ]
    for bad_views, bad_labels, message in cases:
        with pytest.raises(DataError, match=message):
            _train(((bad_views, bad_labels), valid))
    words = Task(name="topic", classes=("O", "B"), kind="tokens")
    with pytest.raises(UnsupportedError, match="labels words"):
        _train(rows, tasks=(words,))


def test_no_texts_get_no_scores(rows):
    head = _train(rows)
    none = {name: np.zeros((0, *shape), np.float32) for name, shape in SHAPES.items()}
    assert head.scores(none)["topic"].shape == (0, 4)


def test_an_unknown_device_is_refused(rows):
    with pytest.raises(ConfigError, match="unknown device 'fast'"):
        _train(rows, device="fast")
