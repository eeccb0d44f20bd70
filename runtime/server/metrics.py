"""Figures for ``/metrics``: what the server counts itself, and what the engines report when they are asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ..request import Delta, EngineStats
from .pool import Servable

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FIRST_TOKEN_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
BETWEEN_TOKENS_S = (0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)

COUNTERS: Mapping[str, str] = {
    "steps": "Decode steps of the engine.",
    "prompt_tokens": "Tokens of prompts.",
    "cached_tokens": "Tokens of prompts that the prefix cache spared.",
    "evaluated_tokens": "Tokens that were computed, of prompts and of answers.",
    "generated_tokens": "Tokens written.",
    "forced_tokens": "Tokens written that a grammar left no choice about.",
    "requests": "Requests that the engine took.",
    "cancelled": "Requests cancelled by their owners.",
    "failed": "Requests that failed in the engine.",
    "preempted": "Times a running request made room for another.",
    "aborted_steps": "Steps stopped in their middle.",
    "yielded_steps": "Steps in which background work let others compute.",
    "parked_tokens": "Tokens that came back from ordinary memory.",
    "disk_tokens": "Tokens that came back from disk.",
    "busy_s": "Seconds spent in steps.",
    "kernel_cpu_s": "CPU seconds of all threads in steps.",
    "draft_model_s": "Seconds that the draft model took to read and to foretell.",
}
FORETOLD: Mapping[str, str] = {
    "drafted_tokens": "Tokens foretold and computed beside others, by who foretold them.",
    "accepted_tokens": "Of these, the ones that were right.",
}
GAUGES: Mapping[str, str] = {
    "running": "Requests being computed.",
    "waiting": "Requests in the queue.",
    "kv_used": "KV cells in use.",
    "kv_cells": "KV cells there are.",
    "parked_bytes": "Memory of conversations that left the KV cache.",
    "step_s": "A step without prompts takes so long, as far as was learned.",
    "prompt_row_s": "Each row of a prompt adds so much to a step, as far as was learned.",
    "disk_bytes": "Files of the prefix cache.",
    "resident_bytes": "Resident memory of the engine's process.",
    "resting": "1 while the cache is given back until the next request.",
}

Loaded = Callable[[], Mapping[str, Servable]]


class EngineCollector:
    """Asks the engines at each scrape. Counters start anew when a model is loaded again."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded

    def collect(self) -> Iterator[Metric]:
        models = self._loaded()
        stats = {name: model.stats() for name, model in models.items()}
        yield GaugeMetricFamily("ingle_models_loaded", "Models in memory.", value=len(models))
        yield from (_family(CounterMetricFamily, field, text, stats) for field, text in COUNTERS.items())
        yield from (_foretold(field, text, stats) for field, text in FORETOLD.items())
        yield from (_family(GaugeMetricFamily, field, text, stats) for field, text in GAUGES.items())


def _family(
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily], field: str, text: str, stats: Mapping[str, EngineStats]
) -> Metric:
    name = "ingle_engine_" + (field.removesuffix("_s") + "_seconds" if field.endswith("_s") else field)
    family = kind(name, text, labels=["model"])
    for model, figures in stats.items():
        family.add_metric([model], getattr(figures, field))
    return family


def _foretold(field: str, text: str, stats: Mapping[str, EngineStats]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"ingle_engine_{field}", text, labels=["model", "kind"])
    for model, figures in stats.items():
        by_model = getattr(figures, f"model_{field}")
        family.add_metric([model, "lookup"], getattr(figures, field) - by_model)
        family.add_metric([model, "draft"], by_model)
    return family


class Metrics:
    """A registry of its own for each server: several may live in one process."""

    def __init__(self, loaded: Loaded) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(EngineCollector(loaded))
        self.requests = Counter(
            "ingle_http_requests", "Answered requests.", ["method", "route", "status"], registry=self._registry
        )
        self.first_token = Histogram(
            "ingle_time_to_first_token_seconds",
            "From the request's arrival to its first text.",
            ["model"],
            buckets=FIRST_TOKEN_S,
            registry=self._registry,
        )
        self.between_tokens = Histogram(
            "ingle_inter_token_seconds",
            "Between two pieces of one choice.",
            ["model"],
            buckets=BETWEEN_TOKENS_S,
            registry=self._registry,
        )

    def text(self) -> bytes:
        return generate_latest(self._registry)


class Watch:
    """Times the pieces of one answer."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._began = time.perf_counter()
        self._between: Histogram | None = None
        self._last: dict[tuple[int, int], float] = {}

    def saw(self, model: str, prompt: int, delta: Delta) -> None:
        now = time.perf_counter()
        choice = (prompt, delta.index)
        if self._between is None:
            self._metrics.first_token.labels(model).observe(now - self._began)
            self._between = self._metrics.between_tokens.labels(model)
        elif choice in self._last:
            self._between.observe(now - self._last[choice])
        self._last[choice] = now
