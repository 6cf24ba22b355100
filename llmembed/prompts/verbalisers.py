"""What labels are called in prompts, and what sort of text a data set holds.

A label that is an abbreviation says little to a language model; its readable name says more. Names
are one-to-one, so that an answer can be led back to its label. A new data set is one entry in
``NAMES`` (only the labels that need another name) and one in ``KINDS``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from llmembed.contract import Task
from llmembed.errors import ConfigError

DEFAULT_KIND = "text"

KINDS: dict[str, str] = {
    "default": "documentation of Python's standard library",
    "sst2": "sentence or phrase of a film review",
    "imdb": "film review",
    "agnews": "news item",
    "r8": "news agency item on business and trade",
    "r52": "news agency item on business and trade",
    "20ng": "newsgroup post",
    "massive-en": "request to a voice assistant",
}
"""Benchmark -> the sort of text it holds, as a prompt names it."""

_R8 = {
    "acq": "acquisitions",
    "crude": "crude oil",
    "earn": "earnings",
    "grain": "grain",
    "interest": "interest rates",
    "money-fx": "foreign exchange",
    "ship": "shipping",
    "trade": "trade",
}
_R52 = {
    **_R8,
    "alum": "aluminium",
    "bop": "balance of payments",
    "carcass": "meat and carcasses",
    "cpi": "consumer prices",
    "cpu": "capacity utilisation",
    "dlr": "US dollar",
    "gas": "gasoline",
    "gnp": "gross national product",
    "heat": "heating oil",
    "housing": "housing starts",
    "income": "personal income",
    "instal-debt": "consumer instalment debt",
    "ipi": "industrial production",
    "iron-steel": "iron and steel",
    "jet": "jet fuel",
    "jobs": "employment",
    "lei": "leading economic indicators",
    "meal-feed": "meal and feed",
    "money-supply": "money supply",
    "nat-gas": "natural gas",
    "orange": "orange juice",
    "pet-chem": "petrochemicals",
    "reserves": "currency reserves",
    "retail": "retail sales",
    "strategic-metal": "strategic metals",
    "veg-oil": "vegetable oil",
    "wpi": "wholesale prices",
}
_TOPICS = {
    "alt.atheism": "atheism",
    "comp.graphics": "computer graphics",
    "comp.os.ms-windows.misc": "Microsoft Windows",
    "comp.sys.ibm.pc.hardware": "PC hardware",
    "comp.sys.mac.hardware": "Mac hardware",
    "comp.windows.x": "X Window System",
    "misc.forsale": "items for sale",
    "rec.autos": "cars",
    "rec.motorcycles": "motorcycles",
    "rec.sport.baseball": "baseball",
    "rec.sport.hockey": "ice hockey",
    "sci.crypt": "cryptography",
    "sci.electronics": "electronics",
    "sci.med": "medicine",
    "sci.space": "space",
    "soc.religion.christian": "Christianity",
    "talk.politics.guns": "politics of guns",
    "talk.politics.mideast": "politics of the Middle East",
    "talk.politics.misc": "other politics",
    "talk.religion.misc": "other religion",
}
_ROOTS = {
    "alt": "alternative",
    "comp": "computers",
    "misc": "miscellaneous",
    "rec": "recreation",
    "sci": "science",
    "soc": "society",
    "talk": "debate",
}

NAMES: dict[str, dict[str, dict[str, str]]] = {
    "agnews": {
        "label": {
            "World": "world",
            "Sports": "sports",
            "Business": "business",
            "Sci/Tech": "science and technology",
        }
    },
    "r8": {"label": _R8},
    "r52": {"label": _R52},
    "20ng": {"topic": _TOPICS, "root": _ROOTS},
    "sst2": {"label": {"0": "negative", "1": "positive"}},
    "imdb": {"label": {"0": "negative", "1": "positive"}},
}
"""Benchmark -> task -> label -> readable name. Labels that stand in none keep their own."""


def kind_of(benchmark: str | None) -> str:
    """The sort of text of a benchmark, a neutral word for other data."""
    return KINDS.get(benchmark or "", DEFAULT_KIND)


def names_of(
    task: Task, *, benchmark: str | None = None, own: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """The readable name of each class of ``task``, in order.

    ``own``: label -> name, the user's, which goes before the benchmark's.

    Raises:
        ConfigError: ``own`` names a label the task does not have, or two labels share a name.
    """
    for label in own or {}:
        if label not in task.classes:
            near = difflib.get_close_matches(label, task.classes, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"verbaliser: task {task.name!r} has no label {label!r}{hint}")
    known = {**NAMES.get(benchmark or "", {}).get(task.name, {}), **(own or {})}
    names = tuple(known.get(label, label).strip() for label in task.classes)
    seen: dict[str, str] = {}
    for label, name in zip(task.classes, names, strict=True):
        if not name:
            raise ConfigError(f"verbaliser: label {label!r} of task {task.name!r} has no name")
        other = seen.setdefault(name.casefold(), label)
        if other != label:
            raise ConfigError(
                f"verbaliser: labels {other!r} and {label!r} of task {task.name!r} are both called "
                f"{name!r}; each label needs a name of its own"
            )
    return names
