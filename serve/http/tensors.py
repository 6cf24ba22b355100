"""Answers as tensors of the Open Inference Protocol: as JSON and in its binary
extension.

Binary BYTES: for each element its length as four bytes, little-endian, then the element. See
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llmembed.contract import Prediction, Task
from serve.errors import RequestError
from serve.http.answers import labels_of

if TYPE_CHECKING:
    from serve.model.seats import Answer, Seat

OUTPUTS = {
    "single": ("label", "score", "probs"),
    "multi": ("label", "probs"),
    "tokens": ("label", "words"),
}
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An output: texts (N,) as ``BYTES`` or an array of any shape as ``FP32``."""

    name: str
    values: Sequence[str] | np.ndarray

    @property
    def datatype(self) -> str:
        return "FP32" if isinstance(self.values, np.ndarray) else "BYTES"

    @property
    def shape(self) -> list[int]:
        if isinstance(self.values, np.ndarray):
            return list(self.values.shape)
        return [len(self.values)]

    def data(self) -> list[Any]:
        """The elements in a row, for JSON."""
        if isinstance(self.values, np.ndarray):
            return self.values.astype(np.float32).ravel().tolist()
        return list(self.values)

    def raw(self) -> bytes:
        """The elements in a row, as binary."""
        if isinstance(self.values, np.ndarray):
            return self.values.astype("<f4").tobytes()
        coded = [text.encode() for text in self.values]
        return b"".join(_LENGTH.pack(len(element)) + element for element in coded)


def texts_of_raw(raw: bytes) -> list[str]:
    """The elements of a binary BYTES tensor, as UTF-8. Raises ``RequestError``."""
    texts: list[str] = []
    place = 0
    while place < len(raw):
        end = place + _LENGTH.size
        if end <= len(raw):
            place, end = end, end + _LENGTH.unpack_from(raw, place)[0]
        if end > len(raw):
            raise RequestError(f"element {len(texts)} of the binary input ends beyond its end")
        try:
            texts.append(raw[place:end].decode())
        except UnicodeDecodeError:
            raise RequestError(f"element {len(texts)} of the input is not UTF-8") from None
        place = end
    return texts


def texts_of_data(data: Sequence[Any]) -> list[str]:
    """The elements of a JSON BYTES tensor, nested or in a row. Raises ``RequestError``."""
    texts: list[str] = []
    waiting: list[Any] = list(reversed(data))
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(reversed(value))
        elif isinstance(value, str):
            texts.append(value)
        else:
            raise RequestError(f"element {len(texts)} of the input is no text")
    return texts


def outputs_of(answer: Answer, texts: Sequence[str]) -> dict[str, Tensor]:
    """Every output that the answer can fill, by name."""
    found = {}
    for task in answer.seat.tasks:
        values = values_of(task, answer.predictions[task.name], texts)
        for output, filled in values.items():
            name = output_name(answer.seat, task, output)
            found[name] = Tensor(name=name, values=filled)
    return found


def values_of(
    task: Task, prediction: Prediction, texts: Sequence[str]
) -> dict[str, list[str] | np.ndarray]:
    if task.kind == "tokens":
        words = [labels_of(task, prediction, row, text) for row, text in enumerate(texts)]
        return {
            "label": [json.dumps([word["entity"] for word in found]) for found in words],
            "words": [json.dumps(found) for found in words],
        }
    values: dict[str, list[str] | np.ndarray] = {}
    if task.kind == "multi":
        values["label"] = [
            json.dumps([task.classes[i] for i in np.flatnonzero(chosen)], ensure_ascii=False)
            for chosen in prediction.labels
        ]
    else:
        values["label"] = [
            "" if unread or label < 0 else task.classes[label]
            for label, unread in zip(
                prediction.labels.tolist(), prediction.invalid.tolist(), strict=True
            )
        ]
    if prediction.scores is not None:
        if task.kind == "single":
            rows = np.arange(len(texts))
            values["score"] = prediction.scores[rows, np.maximum(prediction.labels, 0)]
        values["probs"] = prediction.scores
    return values


def output_name(seat: Seat, task: Task, output: str) -> str:
    return output if len(seat.tasks) == 1 else f"{task.name}_{output}"
