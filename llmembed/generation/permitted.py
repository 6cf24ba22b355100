"""What a saved classifier says of its language model, cut down to what whoever loads it allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmembed.backbones.weights import check_location
from llmembed.errors import ModelError
from llmembed.permissions import allowed_now, grant, shown

MOST = {"concurrency": 64, "retries": 20, "give_up_after": 1000, "patience_seconds": 3600}
"""How hard and how long a saved classifier may have an endpoint asked."""
DEFAULT_KEY = "OPENAI_API_KEY"
"""The variable of a description that tells none; one without a key tells null."""


def permitted(settings: Mapping[str, Any], of_a_run: tuple[str, ...]) -> dict[str, Any]:
    """``settings`` of a saved classifier, which are known to be of their kind. The address of an
    endpoint and its key's variable are the loader's own words. ``of_a_run``: what a saved one may
    not hold, as it names files and prices of whoever loads. Raises ``ModelError``."""
    for name in of_a_run:
        if settings.get(name) is not None:
            raise ModelError(
                f"the classifier's language model names a {name}, which whoever loads it chooses: "
                f"remove {name} from its classifier.json"
            )
    found = {
        name: min(value, MOST[name]) if name in MOST and isinstance(value, int | float) else value
        for name, value in settings.items()
    }
    model = str(settings["model"])
    if settings["kind"] == "endpoint":
        key = settings.get("api_key_env", DEFAULT_KEY)
        given = allowed_now().endpoint(
            model, str(settings["base_url"]), None if key is None else str(key)
        )
        found |= {"base_url": given.address, "api_key_env": given.key}
        with_key = f"with the key in {given.key}" if given.key else "without a key"
        grant(f"asks {shown(model)} at {given.address}, {with_key}")
        if settings.get("tokenizer"):
            check_location(str(settings["tokenizer"]), None, file="tokenizer_config.json")
    else:
        revision = settings.get("revision")
        check_location(model, None if revision is None else str(revision))
    return found
