"""``embed``: fill the embedding store for a corpus, computing only what is missing."""

from __future__ import annotations

import time
from typing import Any

from llmembed.experiment import Experiment
from llmembed.pipelines.assembly import Assembler, make_corpus, make_runtime
from llmembed.pipelines.printing import console, write_json


def embed(experiment: Experiment, *, json_path: str | None = None) -> list[dict[str, Any]]:
    """Embed every text of the experiment's corpus with every backbone its methods read.

    Returns one record per backbone: texts computed, reused and doubled, rows/s, tokens/s, the
    share of padding and of texts and tokens cut.
    """
    from llmembed.embeddings import embed as embed_texts

    out = console()
    settings = experiment.runtime
    records = []
    assembler = Assembler(experiment)
    specs = assembler.backbones()
    with make_runtime(**settings.model_dump()) as runtime:
        corpus = make_corpus(experiment.data, runtime.files)
        texts = [*corpus.train.texts, *corpus.valid.texts, *(corpus.test.texts if corpus.test else ())]
        for spec in specs:
            start = time.perf_counter()
            embedded = embed_texts(spec, texts, runtime)
            record = {
                "corpus": corpus.name,
                "partial": corpus.partial,
                "backbone": spec.label,
                "fingerprint": spec.fingerprint(),
                "dtype": spec.dtype,
                "seconds": time.perf_counter() - start,
                **embedded.figures(),
            }
            records.append(record)
            out.print(embedded.sentence(f"{corpus.name} with {spec.label}"))
    write_json(json_path, records)
    return records
