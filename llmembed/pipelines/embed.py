"""``embed``: fill the embedding store for a corpus, computing only what is missing."""

from __future__ import annotations

import time
from typing import Any

from llmembed.experiment import Experiment
from llmembed.pipelines.console import check_writable, console, write_json
from llmembed.pipelines.corpus import make_corpus
from llmembed.pipelines.methods import Assembler
from llmembed.pipelines.runtime import make_runtime


def embed(experiment: Experiment, *, json_path: str | None = None) -> list[dict[str, Any]]:
    """Embed every text of the experiment's corpus with every backbone its methods read.

    Returns one record per backbone: texts computed, reused and doubled, rows/s, tokens/s, the
    share of padding and of texts and tokens cut.
    """
    from llmembed.embeddings import embed as embed_texts

    out = console()
    settings = experiment.runtime
    records = []
    check_writable(json_path)
    assembler = Assembler(experiment, drop_unreadable=True)
    specs = assembler.backbones()
    with make_runtime(**settings.model_dump()) as runtime:
        corpus = make_corpus(experiment.data, runtime.files)
        texts = [
            *corpus.train.texts,
            *corpus.valid.texts,
            *(corpus.test.texts if corpus.test else ()),
        ]
        for spec in specs:
            start = time.perf_counter()
            embedded = embed_texts(spec, texts, runtime, keep=False)
            record = {
                "corpus": corpus.name,
                "partial": corpus.partial,
                "backbone": spec.label,
                "fingerprint": spec.fingerprint(),
                "dtype": spec.dtype,
                "seconds": time.perf_counter() - start,
                "computed": embedded.computed,
                "reused": embedded.reused,
                "duplicates": embedded.duplicates,
                "rows_per_second": embedded.rows_per_second,
                "tokens_per_second": embedded.tokens_per_second,
                "padding": embedded.padding,
                "cut_texts": embedded.cut_texts,
                "cut_tokens": embedded.cut_tokens,
                "damaged_parts": list(embedded.damaged),
                "usage": embedded.usage.to_json(),
                "loading": embedded.loading.to_json(),
            }
            records.append(record)
            out.print(f"{corpus.name} with {spec.label}: {embedded.summary()}")
    write_json(json_path, records)
    return records
