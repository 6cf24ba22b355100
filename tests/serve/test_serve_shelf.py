"""Which version answers: aliases that move, versions asked for by name, challengers, drift."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving_program import examples, fitted, registered

from llmembed.errors import ModelError
from llmembed.methods.frozen.lexical import Lexical
from llmembed.tracking import Tracking
from serve.errors import UnknownModelError
from serve.model.metrics import exposition
from serve.model.server import Server
from serve.settings import load_settings


@pytest.fixture(scope="module")
def lexical(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return fitted(Lexical(), tmp_path_factory.mktemp("lexical"))


@pytest.fixture
def put(tmp_path: Path, lexical: Any, empty_database: Path) -> Callable[[float], Any]:
    """Registers a version of ``news`` with a score."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")

    def put(score: float) -> Any:
        return registered(lexical, "news", tmp_path, score=score, at=tmp_path / f"v{score}")

    return put


def served(files: Path, model: str | Path = "news", *, known: Any = None, **more: Any) -> Server:
    """A replica of one model, not started; ``known``: versions that worked."""
    settings = load_settings({"models": [str(model)], "files": str(files), **more})
    return Server(settings, known=known)


def test_a_moved_alias_is_followed_and_the_old_one_answers_what_it_has(
    tmp_path: Path, put: Callable[[float], Any]
) -> None:
    async def main() -> None:
        put(0.8)
        server = served(tmp_path)
        await server.start()
        old = await server.shelf.get("news")
        assert await server.shelf.refresh() == []
        put(0.9)
        asked = asyncio.create_task(old.predict(["oil price"] * 50, truncate=False))
        assert await server.shelf.refresh() == ["news"]
        new = await server.shelf.get(None)
        assert (old.version, new.version) == (1, 2)
        assert await server.shelf.get("models:/news@champion") is new
        assert len((await asked).predictions["topic"].labels) == 50
        assert (await server.shelf.get("news/1")).version == 1
        await server.stop()

    asyncio.run(main())


def test_a_version_that_cant_be_loaded_leaves_the_old_one(
    tmp_path: Path, put: Callable[[float], Any]
) -> None:
    async def main() -> None:
        put(0.8)
        server = served(tmp_path)
        await server.start()
        put(0.9)
        for manifest in (tmp_path / "mlartifacts").rglob("classifier.json"):
            manifest.unlink()
        assert await server.shelf.refresh() == []
        assert await server.shelf.refresh() == []  # and it is not tried again
        assert (await server.predict(["oil"])).seat.version == 1
        told = exposition([server.families()]).decode()
        assert 'llmembed_swaps_total{model="news",replica="0",result="failed"} 1.0' in told

    asyncio.run(main())


def test_a_replica_that_starts_falls_back_to_the_version_known_to_work(
    tmp_path: Path, put: Callable[[float], Any]
) -> None:
    async def main() -> None:
        put(0.8)
        kept = {path.parent.parent.parent for path in tmp_path.rglob("classifier.json")}
        put(0.9)
        for manifest in (tmp_path / "mlartifacts").rglob("classifier.json"):
            if manifest.parent.parent.parent not in kept:
                manifest.unlink()
        with pytest.raises(ModelError):
            await served(tmp_path).start()
        server = served(tmp_path, known={"news": 1})
        await server.start()
        assert (await server.predict(["oil"])).seat.version == 1
        await server.stop()

    asyncio.run(main())


def test_what_was_downloaded_does_not_stay(
    tmp_path: Path, put: Callable[[float], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        for score in (0.9, 0.8, 0.7):
            put(score)
        (tmp_path / "tmp").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
        server = served(tmp_path, other_versions=1)
        await server.start()
        for name in ("news/2", "news/3", "news/2", "news/77", "news@nobody"):
            with contextlib.suppress(UnknownModelError):
                await server.shelf.get(name)
        assert not list((tmp_path / "tmp").iterdir())
        await server.stop()

    asyncio.run(main())


def test_other_versions_are_loaded_when_asked_for_and_only_so_many_kept(
    tmp_path: Path, put: Callable[[float], Any]
) -> None:
    async def main() -> None:
        for score in (0.9, 0.8, 0.7, 0.6):
            put(score)
        server = served(tmp_path, other_versions=2)
        await server.start()
        first = await server.shelf.get("news/2")
        assert await server.shelf.get("models:/news/2") is first
        await server.shelf.get("news/3")
        await server.shelf.get("news/4")
        assert await server.shelf.get("news/2") is not first
        assert (await server.shelf.get("news/1")).key == "news"  # the champion itself
        for name in ("news/99", "other", "news@nobody", "news/" + "9" * 40, "../news", "news/٣"):
            with pytest.raises(UnknownModelError):
                await server.shelf.get(name)

    asyncio.run(main())


def test_a_split_goes_by_the_request_and_by_the_share(
    tmp_path: Path, put: Callable[[float], Any]
) -> None:
    async def main() -> None:
        put(0.9)
        put(0.8)  # its challenger
        server = served(tmp_path, **{"challenger.mode": "split", "challenger.share": 0.25})
        await server.start()
        rounds = []
        for _ in range(2):
            names = [f"request-{i}" for i in range(200)]
            rounds.append(
                [(await server.predict(["oil"], request_id=n)).seat.version for n in names]
            )
        assert rounds[0] == rounds[1]
        assert 30 <= rounds[0].count(2) <= 70
        asked = [(await server.predict(["oil"], model="news/1")).seat.version for _ in range(40)]
        assert set(asked) == {1}
        tracking = Tracking(files=tmp_path)
        tracking.client.delete_registered_model_alias("news", "challenger")
        assert await server.shelf.refresh() == ["news@challenger"]
        ids = [f"request-{i}" for i in range(40)]
        assert {(await server.predict(["oil"], request_id=i)).seat.version for i in ids} == {1}

    asyncio.run(main())


def test_drift_tells_other_answers_from_the_same(tmp_path: Path, lexical: Any) -> None:
    folder = tmp_path / "news"
    lexical.save(folder)
    (folder / "validation.json").write_text(
        '{"topic": {"texts": 30, "labels": {"oil": 0.333, "grain": 0.333, "banks": 0.334}}}'
    )

    def index_after(texts: list[str]) -> float:
        async def main() -> float:
            server = served(tmp_path, folder)
            await server.start()
            await server.predict(texts[:150])
            (family,) = [f for f in server.families() if f["name"] == "llmembed_drift_psi"]
            return family["samples"][0][2]

        return asyncio.run(main())

    assert index_after(list(examples(150, seed=3).texts)) < 0.1
    assert index_after(["oil price rose supply"] * 150) > 0.25


def test_of_a_version_that_retired_no_drift_is_told(tmp_path: Path, lexical: Any) -> None:
    folder = tmp_path / "news"
    lexical.save(folder)
    (folder / "validation.json").write_text('{"topic": {"texts": 30, "labels": {"oil": 1.0}}}')

    async def main() -> list[int]:
        server = served(tmp_path, folder)
        await server.start()
        await server.predict(list(examples(150, seed=3).texts))
        counts = []
        for _ in range(2):
            (family,) = [f for f in server.families() if f["name"] == "llmembed_drift_psi"]
            counts.append(len(family["samples"]))
            server.shelf.seats["news"].close()
        return counts

    assert asyncio.run(main()) == [1, 0]


def test_no_such_model_is_one_sentence(tmp_path: Path, put: Callable[[float], Any]) -> None:
    put(0.8)
    with pytest.raises(ModelError, match="nothing"):
        asyncio.run(served(tmp_path, "nothing").start())
