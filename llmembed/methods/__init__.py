"""The rivals: one file each, all behind ``contract.Method`` and ``contract.Classifier``.

A new method is one file here and one line in ``METHODS``.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from llmembed.contract import Classifier
from llmembed.errors import ModelError

METHODS: dict[str, str] = {
    "lexical": "llmembed.methods.frozen.lexical:Lexical",
    "probe": "llmembed.methods.frozen.probe:Probe",
    "fused": "llmembed.methods.frozen.fused:Fused",
    "encoder": "llmembed.methods.finetuned.encoder:Encoder",
    "decoder": "llmembed.methods.finetuned.decoder:Decoder",
    "separate": "llmembed.methods.finetuned.separate:Separate",
    "prompt": "llmembed.methods.prompted.prompt:Prompting",
    "carp": "llmembed.methods.prompted.carp:Carp",
}
"""Name -> the class that fits; its ``classifier`` attribute is the class that answers."""

MANIFEST = "classifier.json"


def method_class(name: str) -> Any:
    """The method class called ``name`` in ``METHODS``."""
    module, _, attribute = METHODS[name].partition(":")
    return getattr(import_module(module), attribute)


def manifest_of(folder: str | Path) -> dict[str, Any]:
    """What ``classifier.json`` in ``folder`` says: method, tasks, usage and settings.

    Raises:
        ModelError: there is none.
    """
    manifest = Path(folder) / MANIFEST
    if not manifest.is_file():
        raise ModelError(f"{folder} holds no {MANIFEST}, so it is not a saved classifier")
    found: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
    return found


def load(folder: str | Path) -> Classifier:
    """The classifier saved in ``folder``.

    Raises:
        ModelError: the folder holds no saved classifier, or one of a method not known here.
    """
    folder = Path(folder)
    name = manifest_of(folder)["method"]
    if name not in METHODS:
        raise ModelError(
            f"{folder} holds a classifier of method {name!r}, which is unknown here: "
            f"known are {', '.join(METHODS)}"
        )
    classifier: Classifier = method_class(name).classifier.load(folder)
    return classifier
