"""A base model with the adapters that were trained over it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmembed.backbones import weights
from llmembed.backbones.resolving import check_weights
from llmembed.errors import ModelError

FILE = "adapter_model.safetensors"


def adapter_sha256(folder: str) -> str:
    """Of the adapters' weights in ``folder``, which is in peft's form. Raises ``ModelError``."""
    file = Path(folder, FILE)
    if not file.is_file():
        raise ModelError(f"{folder} holds no {FILE}, so there are no adapters to put on a model")
    return weights.sha256(file)


def _check_plain(file: Path) -> None:
    """Raise ``ModelError`` for adapters of other kinds than ours: some name others, on the hub."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} can't be read: {error}") from None
    if not isinstance(told, dict) or told.get("peft_type") != "LORA":
        raise ModelError(f"the adapters of {file} are not LoRA's, which alone are read")


def with_adapters(model: Any, folder: str, expected: str | None) -> Any:
    """``model`` with the adapters in ``folder`` inside its layers, by peft; ``expected``: their
    sha256. Raises ``ModelError``."""
    from peft import PeftModel

    check_weights(folder, expected, adapter_sha256(folder), what="adapters")
    _check_plain(Path(folder, "adapter_config.json"))
    try:
        joined: Any = PeftModel.from_pretrained(model, folder)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        raise ModelError(f"the adapters in {folder} do not fit their base: {reason}") from error
    return joined.get_base_model()  # the wrapper hides what forward takes
