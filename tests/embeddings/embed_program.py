"""Embeds texts in a process of its own, to be killed or raced:
``python embed_program.py RUNTIME FILES MODEL COUNT``; prints what it computed."""

from __future__ import annotations

import sys

from tiny_bert import make_texts

from llmembed.backbones import resolve
from llmembed.cluster import LocalRuntime, RayRuntime
from llmembed.embeddings import embed


def main(kind: str, files: str, model: str, count: int) -> None:
    spec = resolve(model, reads="mean:1-2 cls:1", max_tokens=24, dtype="float32")
    runtime = LocalRuntime(files) if kind == "local" else RayRuntime(files, address="local")
    with runtime:
        got = embed(spec, make_texts(count), runtime, part_rows=16)
    print(got.computed, got.reused, len(got.vectors))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
