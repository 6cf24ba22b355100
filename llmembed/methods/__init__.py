"""The rivals, by families, all behind ``contract.Method`` and ``contract.Classifier``.

::

    frozen/      backbones are read and never changed     each family: settings.py (light: what
    finetuned/   a whole model is trained                   may be said, and ``build``), a file
    prompted/    a language model is asked                  for each method and its classifier
    combined/    several of these answer together

    settings     the base of all settings, and what an experiment gives a method that is built
    nested       settings of another method inside a method's own
    saved, answers, views, demonstrations, asked, prompt_classifier    what families share

A new method is one file in its family, its settings beside them, and one line in ``METHODS``.
Installed packages add lines by entry points of the group ``llmembed.methods``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmembed.errors import ModelError
from llmembed.methods.settings import MethodSettings, settings_problem
from llmembed.plugins import Table

if TYPE_CHECKING:
    from llmembed.contract import Classifier, Usage
    from llmembed.permissions import Allowed

METHODS: Table[type[MethodSettings]] = Table(
    "llmembed.methods",
    {
        "lexical": "llmembed.methods.frozen.settings:LexicalSettings",
        "probe": "llmembed.methods.frozen.settings:ProbeSettings",
        "kernel": "llmembed.methods.frozen.settings:KernelSettings",
        "fused": "llmembed.methods.frozen.settings:FusedSettings",
        "encoder": "llmembed.methods.finetuned.settings:EncoderSettings",
        "decoder": "llmembed.methods.finetuned.settings:DecoderSettings",
        "separate": "llmembed.methods.finetuned.settings:SeparateSettings",
        "prompt": "llmembed.methods.prompted.settings:PromptSettings",
        "carp": "llmembed.methods.prompted.settings:CarpSettings",
        "ensemble": "llmembed.methods.combined.settings:EnsembleSettings",
    },
    check=settings_problem,
)
"""Kind -> the settings of the method."""

MANIFEST = "classifier.json"


def classifier_class(kind: str) -> Any:
    """The class of what a method of ``kind`` fits."""
    module, _, attribute = METHODS[kind].classifier.partition(":")
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


def load(folder: str | Path, allowed: Allowed | None = None) -> Classifier:
    """The classifier saved in ``folder``. ``allowed``: what it may do besides computing with its
    weights, such as asking an endpoint; by default what ``permissions.loading`` around this call
    gives, else nothing.

    Raises:
        ModelError: the folder holds no saved classifier, one of a method not known here, or one
            that wants what was not allowed.
    """
    folder = Path(folder)
    kind = manifest_of(folder)["method"]
    if kind not in METHODS:
        why = METHODS.why_not(kind)
        known = f"{why} was left out" if why else f"known are {', '.join(METHODS)}"
        raise ModelError(
            f"{folder} holds a classifier of method {kind!r}, which is unknown here: {known}"
        )
    from llmembed.permissions import loading

    with loading(allowed):
        classifier: Classifier = classifier_class(kind).load(folder)
    return classifier


def mean_of(name: str, classifiers: Sequence[Classifier], shared: Usage) -> Classifier:
    """Several seeds of the method ``name`` as one classifier: the mean of their probabilities.
    ``shared``: what the ``fit_usage`` of each holds and was done once."""
    made: Classifier = import_module("llmembed.methods.combined.ensemble").mean_of(
        name, classifiers, shared
    )
    return made
