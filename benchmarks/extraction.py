"""Embedding extraction against what a user would write, in one run, alternating and repeated.

    python benchmarks/extraction.py --data r8 --json benchmarks/results/extraction.json

Same texts, same model (MiniLM), same number of threads for all:

    ours_ray        our extractor on Ray Data actors, from the first row to the last
    ours            our extractor in this process, tokenising and writing parts included
    st_default      sentence_transformers.encode with its defaults (fp32)
    st_same_dtype   the same in our dtype
    padded_loop     the LLMEmbed authors' loop: every text padded to 512 tokens, batches of 10, fp32

``speedup_*`` are medians of paired ratios of seconds (theirs / ours); ``ray_overhead`` is
(ours_ray - ours) / ours by number of documents, median of the repeats. Ray's start and the loading
of models are in none of them. Where sentence-transformers is not installed (``pip install
'llmembed[bench]'``), its arms are left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from running import Figures, installed, parse


def main() -> int:
    options = _options()
    import torch

    torch.set_num_threads(options.threads)
    from llmembed.backbones import resolve
    from llmembed.cluster import LocalRuntime, RayRuntime

    spec = resolve(options.model)
    figures = Figures(options.json)
    figures.add(
        model=spec.label,
        dtype=spec.dtype,
        threads=options.threads,
        repeats=options.repeats,
        actors=options.actors,
    )
    with tempfile.TemporaryDirectory() as folder:
        local = LocalRuntime(folder)
        texts = _texts(options.data, max(options.documents))
        sample = _spread(texts, options.sample)
        figures.add(**_against_peers(spec, sample, options, local))
        figures.add(**_against_padded(_spread(texts, options.padded_sample), options, local))
        with RayRuntime(folder, actors=options.actors) as ray:
            overhead: dict[str, float] = {}
            seconds: dict[str, dict[str, list[float]]] = {}
            for count in options.documents:
                overhead[str(count)], seconds[str(count)] = _ray_cost(
                    spec, texts[:count], options, local, ray
                )
                figures.add(ray_overhead=overhead, ray_seconds=seconds)
    figures.finish()
    print(json.dumps(figures, indent=1))
    return 0


def _options() -> argparse.Namespace:
    words = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    words.add_argument("--data", default="r8", help="benchmark that the texts are from")
    words.add_argument("--model", default="minilm")
    words.add_argument("--documents", type=int, nargs="+", default=[5000, 20000])
    words.add_argument("--sample", type=int, default=1000, help="texts in the comparison of peers")
    words.add_argument("--padded-sample", type=int, default=100)
    words.add_argument("--padded-tokens", type=int, default=512)
    words.add_argument("--repeats", type=int, default=3)
    words.add_argument("--threads", type=int, default=2)
    words.add_argument("--actors", type=int, default=2)
    # More documents than the small corpus has: some are joined from two.
    tiny = {"documents": [40, 200], "sample": 20, "padded_sample": 12, "padded_tokens": 64}
    return parse(words, **tiny, repeats=1, threads=1, actors=1)


def _texts(name: str, count: int) -> list[str]:
    """Distinct documents of the benchmark; beyond those, documents joined from two halves."""
    from llmembed.texts import CorpusSource, load_corpus

    with tempfile.TemporaryDirectory() as folder:
        corpus = load_corpus(CorpusSource.benchmark(name), quarantine_folder=Path(folder))
    texts = list(dict.fromkeys(t for part in corpus.splits.values() for t in part.texts))
    rng = np.random.default_rng(0)
    texts = [texts[i] for i in rng.permutation(len(texts))]
    known = set(texts)
    base = len(texts)
    while len(texts) < count:
        first, second = (texts[i].split() for i in rng.integers(base, size=2))
        text = " ".join(first[: len(first) // 2] + second[len(second) // 2 :])
        if text and text not in known:
            known.add(text)
            texts.append(text)
    return texts


def _spread(texts: Sequence[str], count: int) -> list[str]:
    """``count`` texts spread evenly over the lengths, in a random order."""
    ordered = sorted(texts, key=len)
    chosen = [ordered[int(i)] for i in np.linspace(0, len(ordered) - 1, min(count, len(ordered)))]
    return [chosen[i] for i in np.random.default_rng(1).permutation(len(chosen))]


def _against_peers(spec: Any, texts: list[str], options: Any, local: Any) -> dict[str, Any]:
    arms: dict[str, Callable[[], float]] = {"ours": lambda: _stored(spec, texts, local)[0]}
    compared = installed(
        "sentence_transformers", extra="bench", without="ours is not compared with it"
    )
    if compared:
        from sentence_transformers import SentenceTransformer

        folder = str(_folder(spec))
        default = SentenceTransformer(folder, device="cpu")
        same = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": spec.dtype})
        default.max_seq_length = same.max_seq_length = spec.max_tokens
        arms |= {
            "st_default": lambda: _timed(lambda: default.encode(texts, show_progress_bar=False)),
            "st_same_dtype": lambda: _timed(lambda: same.encode(texts, show_progress_bar=False)),
        }
    seconds = _alternate(arms, options.repeats)
    tokens = _stored(spec, texts, local)[1]
    found: dict[str, Any] = {
        "texts": len(texts),
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": {arm: tokens / statistics.median(s) for arm, s in seconds.items()},
    }
    if compared:
        found["speedup_vs_sentence_transformers"] = _ratio(seconds["st_default"], seconds["ours"])
        found["speedup_vs_sentence_transformers_same_dtype"] = _ratio(
            seconds["st_same_dtype"], seconds["ours"]
        )
        found["cosine_to_fp32"] = _cosine(spec, texts[:200], default)
    return found


def _against_padded(texts: list[str], options: Any, local: Any) -> dict[str, Any]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    from llmembed.backbones import resolve

    longest = options.padded_tokens
    spec = resolve(options.model, max_tokens=longest)
    folder = _folder(spec)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def loop() -> None:
        for start in range(0, len(texts), 10):
            inputs = tokenizer(
                texts[start : start + 10],
                padding="max_length",
                truncation=True,
                max_length=longest,
                return_tensors="pt",
            )
            states = model(**inputs, output_hidden_states=True).hidden_states
            torch.stack([state.mean(dim=1) for state in states[-5:]], dim=1)

    ours = f"ours_{longest}"
    arms = {ours: lambda: _stored(spec, texts, local)[0], "padded_loop": lambda: _timed(loop)}
    seconds = _alternate(arms, options.repeats)
    return {
        "padded_texts": len(texts),
        "padded_seconds": seconds,
        "speedup_vs_padded_loop": _ratio(seconds["padded_loop"], seconds[ours]),
    }


def _ray_cost(
    spec: Any, texts: list[str], options: Any, local: Any, ray: Any
) -> tuple[float, dict[str, list[float]]]:
    _stored(spec, texts[:64], ray)  # the cluster is up and the actors' code is loaded once
    arms = {
        "ours": lambda: _stored(spec, texts, local)[0],
        "ours_ray": lambda: _stored(spec, texts, ray)[0],
    }
    seconds = _alternate(arms, options.repeats, warm_up=False)
    costs = [(r - p) / p for r, p in zip(seconds["ours_ray"], seconds["ours"], strict=True)]
    return statistics.median(costs), seconds


def _stored(spec: Any, texts: list[str], runtime: Any) -> tuple[float, int]:
    """Embed ``texts`` into a fresh store; seconds from the first row's start to the last row's
    end by the workers' own clocks, and tokens read."""
    from llmembed.embeddings.blocks import table_of
    from llmembed.embeddings.embed import PART_ROWS
    from llmembed.embeddings.keys import keys_of
    from llmembed.embeddings.stages import stages

    with tempfile.TemporaryDirectory() as folder:
        table = table_of(
            keys_of(texts),
            texts,
            np.arange(len(texts)),
            max_tokens=spec.max_tokens,
            rows=PART_ROWS,
        )
        receipts = list(
            runtime.map_texts(table, stages(folder, spec, rows=PART_ROWS), label="benchmark")
        )
    assert sum(receipt.num_rows for receipt in receipts) == len(texts), "a row was lost"
    began = min(pc.min(receipt["began"]).as_py() for receipt in receipts)
    ended = max(pc.max(receipt["ended"]).as_py() for receipt in receipts)
    return ended - began, sum(pc.sum(receipt["tokens"]).as_py() for receipt in receipts)


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _alternate(
    arms: dict[str, Callable[[], float]], repeats: int, *, warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds by arm, the arms in turn; one uncounted turn first."""
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    for turn in range(-1 if warm_up else 0, repeats):
        for arm, work in arms.items():
            took = work()
            if turn >= 0:
                seconds[arm].append(took)
                print(f"{arm}: {took:.2f} s", file=sys.stderr)
    return seconds


def _ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    return statistics.median(t / o for t, o in zip(theirs, ours, strict=True))


def _cosine(spec: Any, texts: list[str], reference: Any) -> dict[str, float]:
    """Of our mean at depth 1 to sentence-transformers' fp32 vectors."""
    from llmembed.backbones import embed_texts, parse_reads

    place = spec.reads.index(parse_reads("mean:1")[0])
    ours = embed_texts(spec, texts)[:, place]
    theirs = reference.encode(texts, show_progress_bar=False, normalize_embeddings=True)
    ours = ours / np.linalg.norm(ours, axis=1, keepdims=True)
    cosines = (ours * theirs).sum(axis=1)
    return {"mean": float(cosines.mean()), "min": float(cosines.min())}


def _folder(spec: Any) -> Path:
    """The folder that holds the model, for the peers to load."""
    from llmembed.backbones.weights import local_folder

    folder = local_folder(spec.location)
    assert folder is not None, "the peers load the model from a folder"
    return folder


if __name__ == "__main__":
    sys.exit(main())
