"""Whether the winner's validation and test disagree, and what differs, told with the board."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmembed.pipelines.compare.recording import by_product

if TYPE_CHECKING:
    import numpy.typing as npt

    from llmembed.contract import Runtime
    from llmembed.evaluation import Leaderboard
    from llmembed.pipelines.methods import Assembler
    from llmembed.texts import Corpus
    from llmembed.tracking import Run


def with_disagreement(
    board: Leaderboard, corpus: Corpus, assembler: Assembler, runtime: Runtime, run: Run
) -> Leaderboard:
    """``board``, which where validation and test of its winner differ beyond chance says what
    differs; that is on ``run``, too. Embeddings are compared where the winner reads some, so that
    the store holds them."""
    from llmembed.evaluation import Leaderboard
    from llmembed.evaluation.disagreement import find_disagreement

    winner = board.winner
    if winner is None:
        return board

    def embed(texts: Sequence[str]) -> npt.NDArray[Any]:
        return _mean_of_reads(texts, assembler, runtime)

    found = None
    with by_product("what differs between validation and test"):
        found = find_disagreement(
            winner,
            board.results_of(winner),
            corpus,
            rivals=sum(row.eligible for row in board.rows),
            embed=embed if assembler.reads_backbone(winner.method) else None,
        )
    if found is None:
        return board
    run.metrics(found.figures)
    run.tags({"llmembed.valid_and_test_disagree": found.summary})
    return Leaderboard(board.results, found)


def _mean_of_reads(
    texts: Sequence[str], assembler: Assembler, runtime: Runtime
) -> npt.NDArray[Any]:
    """Of every backbone's reads the mean, side by side, float32 (N, F)."""
    import numpy as np

    from llmembed.embeddings import embed

    rows = [
        np.asarray(embed(spec, texts, runtime, keep=False).vectors, dtype=np.float32).mean(axis=1)
        for spec in assembler.backbones()
    ]
    return np.concatenate(rows, axis=1)
