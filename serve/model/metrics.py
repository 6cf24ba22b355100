"""What one replica counts, in Prometheus's terms; several replicas' counts go together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
TOKENS = (16, 64, 256, 1024, 2048, 4096, 8192, 16_384, 32_768)
JOULES = (0.001, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)

Family = dict[str, Any]
"""A metric as JSON: name, documentation, type, samples [name, labels, value]."""


class Metrics:
    """Counters and histograms of one replica; nothing is registered for the process at large."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "llmembed_requests", "Requests answered", ["path", "status"], registry=registry
        )
        self.seconds = Histogram(
            "llmembed_request_seconds",
            "From the first byte of a request to the last of its answer",
            ["path"],
            buckets=SECONDS,
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "llmembed_queue_seconds", "Waiting for the model", buckets=SECONDS, registry=registry
        )
        self.batch_tokens = Histogram(
            "llmembed_batch_tokens", "Tokens of a batch", buckets=TOKENS, registry=registry
        )
        self.queued_tokens = Gauge(
            "llmembed_queued_tokens", "Tokens waiting for a model", registry=registry
        )
        self.tokens = Counter(
            "llmembed_tokens", "Tokens of texts answered", ["model"], registry=registry
        )
        self.request_joules = Histogram(
            "llmembed_request_energy_joules",
            "Energy of a request: its share of its batches'",
            buckets=JOULES,
            registry=registry,
        )
        self.joules = Counter(
            "llmembed_energy_joules", "Energy of all requests", ["how"], registry=registry
        )
        self.answers = Counter(
            "llmembed_answers", "Answers given", ["model", "task", "label"], registry=registry
        )
        self.unanswered = Counter(
            "llmembed_unanswered",
            "Texts to which the endpoint of a language model gave no answer",
            ["model"],
            registry=registry,
        )
        self.drift = Gauge(
            "llmembed_drift_psi",
            "Population stability index of the last answers against validation's",
            ["model", "task", "of"],
            registry=registry,
        )
        self.shadow = Counter(
            "llmembed_shadow",
            "Requests copied to the challenger, and how its answer compares",
            ["model", "result"],
            registry=registry,
        )
        self.swaps = Counter(
            "llmembed_swaps", "Versions taken into service", ["model", "result"], registry=registry
        )
        self.loaded = Gauge(
            "llmembed_model_loaded", "Versions in service", ["model", "version"], registry=registry
        )

    def families(self, replica: str) -> list[Family]:
        """All of it as JSON, each sample labelled with ``replica``."""
        return [
            {
                "name": metric.name,
                "documentation": metric.documentation,
                "type": metric.type,
                "samples": [
                    [sample.name, {**sample.labels, "replica": replica}, sample.value]
                    for sample in metric.samples
                ],
            }
            for metric in self.registry.collect()
        ]


def exposition(replicas: Iterable[Iterable[Family]]) -> bytes:
    """The text that Prometheus reads, of one or several replicas' families."""
    merged: dict[str, Metric] = {}
    for families in replicas:
        for family in families:
            name = family["name"]
            if name not in merged:
                merged[name] = Metric(name, family["documentation"], family["type"])
            for sample, labels, value in family["samples"]:
                merged[name].add_sample(sample, labels, value)
    return generate_latest(_Ready(merged.values()))


class _Ready:
    """Looks like a registry to ``generate_latest``."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics
