"""Generators that run a Hugging Face causal model here or on a runtime's actors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

import numpy as np

from llmembed.contract import Runtime, Stage, Usage
from llmembed.errors import ConfigError, UnsupportedError
from llmembed.generation.cache import ResponseCache, score_key
from llmembed.generation.cached import CachedGenerator, KeepAnswers
from llmembed.generation.engine import EngineRuntime
from llmembed.generation.progress import progress
from llmembed.generation.prompt_tokens import PromptTokeniser
from llmembed.generation.request import Sampling
from llmembed.prompts import Prompt

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from llmembed.backbones.quantising import Bits
    from llmembed.backbones.spec import Dtype
    from llmembed.generation.local_model import LocalModel
    from llmembed.generation.local_spec import LocalSpec
    from llmembed.generation.local_work import Generate, Score

Backend = Literal["auto", "transformers", "vllm"]
BACKENDS: tuple[Backend, ...] = ("auto", "transformers", "vllm")

BATCH_TOKENS = 16384
CHUNK_PROMPTS = 64
"""Prompts that a worker answers before it hands the answers over: what a crash can lose of each."""
_LEAST_CHUNKS = 8
"""Of few prompts chunks are smaller, so that all actors have work."""


class LocalGenerator(CachedGenerator):
    """A causal language model from safetensors: a hub id or a local folder.

    ``batch_tokens``: positions of prompts and longest answers computed at once; out of memory
    halves it. ``share_prefix``: the beginning that prompts have in common is computed once.
    ``chunk_prompts``: answers come, and are cached, in chunks of so many. ``machinery_only``: by
    default what the model's folder says (``llmembed-untrained.json``). ``backend``: what writes
    answers, ``transformers`` or ``vllm``; ``auto`` takes vLLM where it is installed and the
    runtime's cluster has a GPU. Scores are always computed by ``transformers``. ``adapter`` and
    ``quantise``: see ``LocalSpec``; with either ``transformers`` answers. Prompts that are equal
    are answered once in a call. Without a runtime the model is loaded here when first needed, and
    kept.

    Raises ``ModelError`` when the model can't be found; asked for vLLM where it can't run,
    ``UnsupportedError``.
    """

    def __init__(
        self,
        *,
        model: str,
        revision: str | None = None,
        dtype: Dtype | Literal["auto"] = "auto",
        device: str = "auto",
        batch_tokens: int = BATCH_TOKENS,
        chunk_prompts: int = CHUNK_PROMPTS,
        cache: ResponseCache | None = None,
        machinery_only: str | None = None,
        share_prefix: bool = True,
        backend: Backend = "auto",
        adapter: str | None = None,
        quantise: Bits | None = None,
    ) -> None:
        from llmembed.generation.local_spec import pin, untrained

        if backend not in BACKENDS:
            raise ConfigError(f"unknown backend {backend!r}; known are {', '.join(BACKENDS)}")
        if chunk_prompts < 1:
            raise ConfigError(f"chunk_prompts {chunk_prompts} is too few: at least 1")
        self.spec: LocalSpec = pin(
            model,
            revision=revision,
            dtype=dtype,
            device=device,
            batch_tokens=batch_tokens,
            share_prefix=share_prefix,
            adapter=adapter,
            quantise=quantise,
        )
        super().__init__(cache)
        self.backend = backend
        self.chunk_prompts = chunk_prompts
        self._machinery_only = machinery_only or untrained(self.spec.location)
        self._tokeniser = PromptTokeniser(
            location=self.spec.location,
            revision=None if self.spec.weights_sha256 else self.spec.revision,
        )
        self._model: LocalModel | None = None

    def __repr__(self) -> str:
        return f"LocalGenerator({self.name!r})"

    def to_json(self) -> dict[str, Any]:
        """The description from which ``build_generator`` makes it again, pinned to the hub's
        commit; without the cache, which belongs to one run."""
        told = {
            "kind": "local",
            "model": self.spec.location,
            "revision": None if self.spec.weights_sha256 else self.spec.revision,
            "dtype": self.spec.dtype,
            "device": self.spec.device,
            "batch_tokens": self.spec.batch_tokens,
            "chunk_prompts": self.chunk_prompts,
            "machinery_only": self._machinery_only,
            "backend": None if self.backend == "auto" else self.backend,
            "adapter": self.spec.adapter,
            "quantise": self.spec.quantise,
        }
        return {name: value for name, value in told.items() if value is not None}

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def context(self) -> int | None:
        return self.spec.context

    @property
    def machinery_only(self) -> str | None:
        return self._machinery_only

    @property
    def gives_scores(self) -> bool:
        return True

    @property
    def counts_exactly(self) -> bool:
        return True

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this model's answers from any other's in the cache."""
        return self.spec.identity

    def identity_on(self, runtime: Runtime | None) -> dict[str, Any]:
        """Other kernels may tip the balance between two words."""
        return {**self.identity, **({"backend": "vllm"} if self._by_vllm(runtime) else {})}

    def _by_vllm(self, runtime: Runtime | None) -> TypeGuard[EngineRuntime]:
        if self.backend == "transformers":
            return False
        lacks: str | None = "it runs on a Ray cluster, and here this process works alone"
        if self.spec.adapter is not None or self.spec.quantise is not None:
            lacks = "transformers alone reads adapters beside their base, and quantised weights"
        elif isinstance(runtime, EngineRuntime):
            lacks = runtime.lacks_engine()
        if lacks is not None and self.backend == "vllm":
            raise UnsupportedError(
                f"{self.spec.model} can't be asked with backend vllm: {lacks}; set backend to "
                "transformers, or name the address of a `vllm serve` as an endpoint"
            )
        return lacks is None

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        return [len(row) for row in self._tokeniser.encode(prompts)]

    def _answer(
        self,
        prompts: Mapping[str, Prompt],
        sampling: Sampling,
        keep: KeepAnswers,
        runtime: Runtime | None,
    ) -> None:
        from llmembed.generation.local_work import Generate, answers_of

        if self._by_vllm(runtime):
            self._answer_by_vllm(prompts, sampling, keep, runtime)
            return
        for table in self._tables(prompts, Generate(self.spec, sampling), runtime):
            keep(answers_of(table))

    def _answer_by_vllm(
        self,
        prompts: Mapping[str, Prompt],
        sampling: Sampling,
        keep: KeepAnswers,
        runtime: EngineRuntime,
    ) -> None:
        from llmembed.generation.vllm_rows import Answers, engine_of, ids_table

        ids = self._tokeniser.encode([*prompts.values()])
        self.spec.check_fits(max(map(len, ids)), sampling.max_tokens)
        end = self._tokeniser.tokeniser.eos_token_id
        engine = engine_of(self.spec, sampling, [] if end is None else [int(end)])
        answers = Answers(runtime.gpus())
        table = ids_table([*prompts], ids)
        for done in runtime.map_engine(table, engine, label=f"ask {self.spec.model}"):
            keep(answers.of(done))

    def score(
        self,
        prompts: Sequence[Prompt],
        candidates: Sequence[str],
        runtime: Runtime | None = None,
    ) -> npt.NDArray[np.float32]:
        """See ``Generator.score``. The end of the answer does not count: ``rec`` and ``rec.autos``
        are compared by their own tokens alone."""
        from llmembed.generation.local_work import Score, scores_of

        keys = [score_key(self.identity, prompt, candidates) for prompt in prompts]
        distinct = dict(zip(keys, prompts, strict=True))
        scored, keep = self._scores([*distinct])
        missing = {key: prompt for key, prompt in distinct.items() if key not in scored}
        if missing:
            for table in self._tables(missing, Score(self.spec, tuple(candidates)), runtime):
                keep(scores_of(table))
        values = [scored[key].scores for key in keys]
        return np.asarray(values, dtype=np.float32).reshape(len(prompts), len(candidates))

    def missing_scores(
        self, prompts: Sequence[Prompt], candidates: Sequence[str]
    ) -> list[tuple[Prompt, tuple[str, ...]]]:
        """See ``CachedGenerator.missing_scores``; the candidates of a prompt are scored at once."""
        keyed = {score_key(self.identity, prompt, candidates): prompt for prompt in prompts}
        kept = self._scores_kept([*keyed])
        return [(prompt, tuple(candidates)) for key, prompt in keyed.items() if key not in kept]

    def scoring_tokens(self, prompt: Prompt, candidates: Sequence[str]) -> Usage:
        """See ``CachedGenerator.scoring_tokens``; a prompt is read once for all candidates."""
        (count,) = self.count_tokens([prompt])
        text = self._tokeniser.text(prompt)
        own = sum(map(len, self._tokeniser.candidates(candidates, after=text)))
        return Usage(tokens=count + own)

    def paid(self) -> Usage:
        """See ``Generator.paid``. Loading the model is not in it."""
        return super().paid()

    def _tables(
        self, missing: Mapping[str, Prompt], make: Generate | Score, runtime: Runtime | None
    ) -> Iterator[pa.Table]:
        from llmembed.generation.local_work import prompts_table

        # Prompts of like length stand together, the longest first: if memory is short, at once.
        ordered = sorted(missing.items(), key=lambda item: -sum(len(m.content) for m in item[1]))
        table = prompts_table(dict(ordered))
        rows = self.chunk_prompts
        label = f"ask {self.spec.model}"
        if runtime is not None:
            rows = min(rows, -(-table.num_rows // _LEAST_CHUNKS))
            stage = Stage(make=make, rows=rows, model=True)
            yield from runtime.map_texts(table, [stage], label=label)
            return
        work = make.with_model(self.model)
        with progress(label, table.num_rows) as advance:
            for start in range(0, table.num_rows, rows):
                yield work(table.slice(start, rows))
                advance(min(rows, table.num_rows - start))

    @property
    def model(self) -> LocalModel:
        """The model in this process; loaded when first asked for."""
        if self._model is None:
            from llmembed.generation.local_model import LocalModel

            self._model = LocalModel(self.spec)
        return self._model

    def release(self) -> None:
        """Give back what the model holds in this process."""
        self._model = None
