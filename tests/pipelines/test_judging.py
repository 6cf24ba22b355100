"""An experiment's metric and costs, put on the tasks of its corpus."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llmembed.contract import Examples, Task
from llmembed.errors import ConfigError
from llmembed.experiment import load_experiment
from llmembed.pipelines.judging import judged
from llmembed.texts import Corpus

SPAM = Task(name="spam", classes=("ham", "spam"))
TAGS = Task(name="tags", classes=("a", "b"), kind="multi")
SLOTS = Task(name="slots", classes=("O", "B-x"), kind="tokens")


def corpus(*tasks: Task) -> Corpus:
    none = Examples(texts=[], labels={task.name: np.zeros(0) for task in tasks})
    return Corpus(name="c", tasks=tasks, train=none, valid=none, test=None, digest="d")


def test_a_metric_for_all_tasks_and_one_for_each() -> None:
    both = judged(corpus(SPAM, TAGS), "macro_f1", {})
    assert [task.metric for task in both.tasks] == ["macro_f1", "macro_f1"]
    each = judged(corpus(SPAM, TAGS), {"spam": "mcc"}, {})
    assert [task.metric for task in each.tasks] == ["mcc", None]
    assert each.digest == "d"  # the data are the same


def test_costs_are_a_table_of_truth_and_answer_and_the_metric_unless_named() -> None:
    costs = {"spam": {"ham": {"spam": 10.0}}}
    [task] = judged(corpus(SPAM), None, costs).tasks
    assert task.costs == ((0.0, 10.0), (1.0, 0.0))
    assert task.metric == "cost"
    [task] = judged(corpus(SPAM), "accuracy", costs).tasks
    assert task.metric == "accuracy" and task.costs is not None


def test_what_is_not_named_stays_as_the_data_have_it() -> None:
    own = replace(TAGS, metric="macro_f1")
    assert judged(corpus(own), None, {}).tasks == (own,)
    assert judged(corpus(own), {}, {}).tasks == (own,)


@pytest.mark.parametrize(
    ("metric", "costs", "said"),
    [
        ({"span": "mcc"}, {}, "metric: there is no task 'span'.* did you mean 'spam'"),
        (None, {"span": {}}, "costs: there is no task 'span'"),
        (None, {"spam": {"sham": {}}}, "costs.spam: there is no class 'sham'"),
        (None, {"spam": {"ham": {"spma": 1.0}}}, "costs.spam.ham: there is no class 'spma'"),
        (None, {"tags": {}}, "costs are for tasks of kind 'single'"),
        ("accuracy", {}, r"'tags' of kind 'multi': .* metric: {spam: accuracy, tags: micro_f1"),
        ({"tags": "mcc"}, {}, "'tags' of kind 'multi', which can be judged by micro_f1"),
        ({"spam": "cost"}, {}, "metric 'cost' needs to know what mistakes"),
    ],
)
def test_what_does_not_fit_is_one_sentence(metric, costs, said) -> None:
    with pytest.raises(ConfigError, match=said):
        judged(corpus(SPAM, TAGS, SLOTS), metric, costs)


def test_a_table_of_costs_is_not_made_for_thousands_of_classes() -> None:
    many = Task(name="t", classes=tuple(str(i) for i in range(1001)))
    with pytest.raises(ConfigError, match="1,000 classes are the most"):
        judged(corpus(many), None, {"t": {"1": {"2": 3.0}}})


def test_an_experiment_says_both_and_unknown_names_are_refused_before_any_work() -> None:
    overrides = ["metric={label: recall_at_precision_0.95}", "costs={label: {a: {b: 2}}}"]
    experiment = load_experiment("compare", overrides=overrides)
    assert experiment.metric == {"label": "recall_at_precision_0.95"}
    assert experiment.costs == {"label": {"a": {"b": 2.0}}}
    assert load_experiment("compare", overrides=["metric=mcc"]).metric == "mcc"
    with pytest.raises(ConfigError, match=r"metric.*unknown metric 'acuracy'.*'accuracy'"):
        load_experiment("compare", overrides=["metric=acuracy"])
    with pytest.raises(ConfigError, match=r"costs\.label\.a\.b"):
        load_experiment("compare", overrides=["costs={label: {a: {b: -2}}}"])
