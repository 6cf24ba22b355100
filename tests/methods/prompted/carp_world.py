"""What tests of ``carp`` share: fitting on one topic, and which question a prompt is."""

from __future__ import annotations

from newsroom import TOPIC
from scripted_generator import whole

from llmembed.contract import Silent
from llmembed.methods.prompted.voting import Rounds

ONE_ROUND = Rounds(number=1, temperature=0.0)


def fit(method, train, runtime, tasks=(TOPIC,)):
    return method.fit(tasks, train, train, runtime, Silent())


def stage_of(prompt) -> str:
    said = whole(prompt)
    if "has the label" in said:
        return "clues" if said.endswith("Clues:") else "reasoning"
    return "answer"
