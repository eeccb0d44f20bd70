"""How fast a model is on this machine, and what it takes of it: a minute's worth of figures."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from ...convert.errors import InputError
from ...convert.progress import Progress, silent
from ..engine.process import EngineProcess
from ..options import LoadOptions
from ..request import ModelInfo, Request, Sampling

SHORT_PROMPT = 32
PROMPT_TOKENS, ANSWER_TOKENS, DEPTH = 512, 128, 1024
SHARE_S = 8.0
"""How long each figure is measured again and again."""

MOST_RUNS = 5
SMALLEST_WINDOW = 64
STAGE = "measure"
STAGES = 4


@dataclass(frozen=True, slots=True)
class Figure:
    """Median and range of ``runs`` measurements with ``tokens`` in each: tokens a second, or seconds."""

    tokens: int
    median: float
    low: float
    high: float
    runs: int

    @classmethod
    def of(cls, tokens: int, values: list[float]) -> Figure:
        return cls(tokens, median(values), min(values), max(values), len(values))


@dataclass(frozen=True, slots=True)
class Speed:
    """load_s: from the start of the engine's process. first_token: seconds, of a short prompt. prompt: reading one.
    answer: writing one, behind a short prompt; answer_deep: behind ``depth`` tokens. resident_bytes: of the engine's
    process at the end; 0 where the system does not say."""

    info: ModelInfo
    load_s: float
    first_token: Figure
    prompt: Figure
    answer: Figure
    answer_deep: Figure
    depth: int
    resident_bytes: int


def measure_speed(
    path: Path, options: LoadOptions | None = None, progress: Progress = silent, *, share_s: float = SHARE_S
) -> Speed:
    """Load a model as ``ingle serve`` does, and measure it with random tokens, which no cache knows.

    Nothing is computed ahead: what a model says behind random tokens repeats itself as no answer does.

    Raises:
        IngleError: it cannot be loaded. InputError: its window is too small to measure anything in.
    """
    began = time.perf_counter()
    engine = EngineProcess(path, replace(options or LoadOptions(), speculate="off"))
    try:
        load_s = time.perf_counter() - began
        return _Stopwatch(engine, progress, share_s).speed(load_s)
    finally:
        engine.close()


class _Stopwatch:
    def __init__(self, engine: EngineProcess, progress: Progress, share_s: float) -> None:
        self._engine, self._progress, self._share_s = engine, progress, share_s
        self._random = random.Random(0)  # noqa: S311 - tokens that no cache knows
        self._window = engine.info.context_length
        self._stages = 0
        if self._window < SMALLEST_WINDOW:
            raise InputError(
                f"a window of {self._window} tokens is too small to measure in", hint=f"--ctx {SMALLEST_WINDOW} or more"
            )

    def speed(self, load_s: float) -> Speed:
        answer = min(ANSWER_TOKENS, self._window // 4)
        short, prompt = min(SHORT_PROMPT, self._window // 4), min(PROMPT_TOKENS, self._window // 2)
        depth = min(DEPTH, self._window - answer - 1)
        self._timed(short, 4)  # the first steps touch what no later step has to
        return Speed(
            info=self._engine.info,
            load_s=load_s,
            first_token=self._figure(short, lambda: self._timed(short, 1)[0]),
            prompt=self._figure(prompt, lambda: prompt / self._timed(prompt, 1)[0]),
            answer=self._figure(answer, lambda: self._writing(short, answer)),
            answer_deep=self._figure(answer, lambda: self._writing(depth, answer)),
            depth=depth,
            resident_bytes=self._engine.stats().resident_bytes,
        )

    def _figure(self, tokens: int, measured: Callable[[], float]) -> Figure:
        deadline, values = time.monotonic() + self._share_s, [measured()]
        while len(values) < MOST_RUNS and time.monotonic() < deadline:
            values.append(measured())
        self._stages += 1
        self._progress(STAGE, self._stages, STAGES)
        return Figure.of(tokens, values)

    def _writing(self, depth: int, tokens: int) -> float:
        """Tokens a second, from the first one on, which belongs to the prompt."""
        times = self._timed(depth, tokens)
        return (len(times) - 1) / (times[-1] - times[0])

    def _timed(self, depth: int, tokens: int) -> list[float]:
        """Seconds from the request to each token."""
        prompt = tuple(self._random.randrange(self._engine.info.vocabulary) for _ in range(depth))
        request = Request(prompt, Sampling(temperature=0), max_tokens=tokens, ignore_eos=True)
        began = time.perf_counter()
        times: list[float] = []
        for delta in self._engine.submit(request):
            times += [time.perf_counter() - began] * len(delta.tokens)
        return times
