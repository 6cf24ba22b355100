"""bfloat16 where the device computes in it; a refusal, or float32, where it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_llama import save_tiny_llama

from llmembed.backbones import hardware
from llmembed.errors import ModelError
from llmembed.generation.local import LocalGenerator
from llmembed.generation.local_model import LocalModel


def test_a_device_without_bfloat16_refuses_or_takes_float32(tmp_path, monkeypatch):
    spec = LocalGenerator(model=str(save_tiny_llama(tmp_path / "tiny")), dtype="bfloat16").spec
    lenient = replace(spec, or_float32=True)
    monkeypatch.setattr(hardware, "BFLOAT16_FLAGS", frozenset())  # a processor of ten years ago
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="does not compute in bfloat16"):
        LocalModel(spec)
    assert LocalModel(lenient).model.dtype == torch.float32
    monkeypatch.setattr(hardware, "BFLOAT16_FLAGS", hardware.cpu_flags() or frozenset({"none"}))
    if hardware.cpu_flags():
        assert LocalModel(lenient).model.dtype == torch.bfloat16
