"""What becomes of methods and views that a model can't give, and of methods that need others."""

from __future__ import annotations

import pytest

from llmembed.errors import ConfigError
from llmembed.experiment import Experiment
from llmembed.pipelines.methods import Assembler


def experiment(model, methods, views=None) -> Experiment:
    given = {"backbones": {"encoder": {"model": str(model)}}, "methods": methods}
    return Experiment.model_validate(given | ({"views": views} if views else {}))


def fused(fusion: str, **more) -> dict:
    return {"kind": "fused", "fusion": fusion, **more}


@pytest.fixture(scope="module")
def no_pooler(tmp_path_factory):
    """A BERT whose folder holds no pooler."""
    from tiny_bert import save_tiny_bert
    from transformers import AutoModel

    folder = save_tiny_bert(tmp_path_factory.mktemp("models") / "no-pooler")
    AutoModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(folder)
    return folder


def test_fusions_go_on_with_the_views_that_are_left(no_pooler):
    views = {"L": "encoder mean:1-2", "B": "encoder pooler", "R": "encoder cls:1"}
    methods = {name: fused(name) for name in ("avg", "avg_b", "avg_b_r", "co_avg_cat")}
    made = Assembler(experiment(no_pooler, methods, views), drop_unreadable=True)
    assert made.names == ["avg", "co_avg_cat"]
    assert set(made.method("co_avg_cat").views) == {"L", "R"}
    said = "\n".join(made.dropped)
    assert "view B is left out" in said
    assert "avg_b is left out: it reads view B" in said


def test_where_no_extra_view_is_left_what_joins_them_is_left_out(no_pooler):
    views = {"L": "encoder mean:1-2", "X": "encoder pooler"}
    methods = {"avg": fused("avg"), "co": fused("co_avg_cat")}
    made = Assembler(experiment(no_pooler, methods, views), drop_unreadable=True)
    assert made.names == ["avg"]


def test_a_view_that_a_fusion_does_not_read_is_no_reason_to_leave_it_out(no_pooler):
    own = {"L": "encoder mean:1-2", "B": "encoder pooler"}
    methods = {"avg": fused("avg", views=own), "avg_b": fused("avg_b", views=own)}
    made = Assembler(experiment(no_pooler, methods), drop_unreadable=True)
    assert made.names == ["avg"]


def test_cheap_methods_come_first(tiny_bert):
    methods = {"f": fused("last"), "p": {"kind": "probe"}, "l": {"kind": "lexical"}}
    assert Assembler(experiment(tiny_bert, methods)).order() == ["l", "p", "f"]


def test_a_method_there_is_not_is_named(tiny_bert):
    made = Assembler(experiment(tiny_bert, {"probe": {"kind": "probe"}}))
    with pytest.raises(ConfigError, match=r"methods\.x\.of: no method .prob.*did you mean"):
        made.fits("prob", "methods.x.of")
    fits = made.fits("probe", "methods.x.of")
    with pytest.raises(ConfigError, match="'probe', which it needs, was not fitted"):
        fits()


def test_settings_of_another_method_stand_inside_a_methods_own():
    from pydantic import BaseModel, ValidationError

    from llmembed.methods.nested import Nested

    class Holder(BaseModel):
        of: Nested

    held = Holder.model_validate({"of": {"kind": "probe", "view": "encoder cls:1"}})
    assert held.model_dump()["of"]["view"] == "encoder cls:1"
    assert Holder.model_validate(held.model_dump()) == held
    for said, words in (
        ({"kind": "prob"}, "kind is 'prob'.*did you mean 'probe'"),
        ({"kind": "probe", "vieww": "x"}, "vieww: unknown key.*did you mean 'view'"),
    ):
        with pytest.raises(ValidationError, match=words):
            Holder.model_validate({"of": said})
