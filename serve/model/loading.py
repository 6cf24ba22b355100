"""A model's files, found or downloaded, read, and gone again."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmembed.contract import Classifier
from llmembed.permissions import loading
from serve.model.hosting import backbones_of

if TYPE_CHECKING:
    from llmembed.backbones import BackboneSpec
    from llmembed.tracking import Registered
    from serve.model.addresses import Address
    from serve.settings import ServeSettings

logger = logging.getLogger("llmembed.serve")


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A model as its files say it; ``version`` and ``run_id`` are the registry's, None for a
    folder."""

    folder: Path
    version: int | None
    run_id: str | None
    backbones: list[BackboneSpec]
    thresholds: Mapping[str, float]
    reference: Mapping[str, Any]
    settings: ServeSettings

    @property
    def classifier(self) -> Classifier:
        """Loaded anew; with the cache and the budgets of the settings if it asks a language
        model."""
        from llmembed.methods import load
        from llmembed.pipelines.generators import cache_of
        from llmembed.pipelines.predict.endpoint import asked_by, asks_endpoint, load_for_run

        allowed = self.settings.allow.allowed()
        with loading(allowed) as granted:
            classifier = load(self.folder)
        for line in granted:
            logger.info("the classifier of %s %s", self.folder, line)
        if asked_by(classifier) is None:
            return classifier
        of_a_run: dict[str, Any] = {"cache": str(cache_of(self.settings.files))}
        if asks_endpoint(classifier):
            # A client waits meanwhile, and may come again by itself.
            patience = self.settings.limits.seconds / 4
            of_a_run |= {"retries": 1, "patience_seconds": patience}
            for name in ("budget_usd", "budget_tokens"):
                if (limit := getattr(self.settings, name)) is not None:
                    of_a_run[name] = limit
        return load_for_run(self.folder, of_a_run, allowed)


def check_asks(folder: Path) -> None:
    """Raise ``ModelError`` where the classifier in ``folder`` asks what was not allowed; read
    without loading it, so that it is said before a replica is started."""
    from llmembed.methods import manifest_of, saved

    described = manifest_of(folder)["settings"].get("generator")
    if described is not None:
        saved.generator(described)


@contextmanager
def opened(address: Address, version: int | None, settings: ServeSettings) -> Iterator[Opened]:
    """The files of the version given, or of the one ``address`` means now; what was downloaded
    is deleted afterwards. Raises ``ModelError``, also where it wants what is not allowed."""
    from llmembed.pipelines.models import find_classifier
    from llmembed.pipelines.sidecars import offered_thresholds, read_validation

    version = version or address.version
    run_id = None
    if address.alias is not None and version is None:
        holder = holder_of(address, settings)
        if holder is not None:
            version, run_id = holder.version, holder.run_id
    uri = address.uri if version is None else f"models:/{address.name}/{version}"
    with tempfile.TemporaryDirectory(prefix="llmembed-model-") as place:
        folder = find_classifier(
            uri, files=settings.files, tracking_uri=settings.tracking_uri, to=Path(place)
        )
        with loading(settings.allow.allowed()):
            backbones = backbones_of(folder)
            check_asks(folder)
        yield Opened(
            folder=folder,
            version=version,
            run_id=run_id,
            backbones=backbones,
            thresholds=offered_thresholds(folder),
            reference=read_validation(folder),
            settings=settings,
        )


def holder_of(address: Address, settings: ServeSettings) -> Registered | None:
    """The version that the alias of ``address`` points to now, None where there is none."""
    from llmembed.tracking import Tracking
    from llmembed.tracking import holder_of as look_up

    assert address.alias is not None
    tracking = Tracking(settings.tracking_uri, files=settings.files)
    return look_up(tracking, address.name, address.alias)  # type: ignore[arg-type]
