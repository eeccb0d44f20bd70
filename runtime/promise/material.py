"""The texts of a promise: one part for importance, one to choose by, and one to judge what was chosen.

Where nobody names a text, the model writes one: what it would say is what its quantization must not change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...convert.errors import InputError
from ...convert.files import appearing
from ...convert.progress import Progress
from ..llama.model import NativeModel
from ..llama.scoring import ScoringContext, ScoringOptions, Span
from ..measure import passage
from ..measure.passage import Passage

FEWEST = 4
"""Passages that a text must have, so that each part has one."""

MOST_TOKENS = 4096
"""Of the part to choose by, and of the part to judge by: enough for two digits of a mean KL divergence."""

MOST_LOGITS_BYTES = 768 << 20
OWN_PASSAGES, OWN_LENGTH = 40, 256
SEED = 20_261_125


@dataclass(frozen=True, slots=True)
class Material:
    """Passages that share no token. sha256: of the whole text; ``on`` its name."""

    importance: tuple[Passage, ...]
    choose: tuple[Passage, ...]
    judge: tuple[Passage, ...]
    sha256: str
    on: str


def read(on: Path | None, model: NativeModel, threads: int, own: Path, progress: Progress) -> Material:
    """The passages of a text, or of what the model writes by itself, which is kept at ``own``.

    Raises:
        InputError: the text cannot be read, or has fewer than four passages.
    """
    if on is None:
        return _dealt(_own(model, threads, own, progress), "", "its own text", model.vocab.size)
    found = passage.read(on, model)
    if len(found.passages) < FEWEST:
        raise InputError(
            f"{on} has {len(found.passages)} passages, and a promise needs {FEWEST}: some to choose types by, others "
            "to judge them",
            hint=f"a text of at least {FEWEST * passage.CHUNK:,} tokens; without --on the model writes one itself",
        )
    return _dealt(found.passages, found.sha256, on.name, model.vocab.size)


def _dealt(passages: Sequence[Passage], sha256: str, on: str, vocab_size: int) -> Material:
    """Every other passage to importance, of the rest every other to judge."""
    affordable = MOST_LOGITS_BYTES // (4 * vocab_size)
    return Material(
        importance=tuple(passages[::2]),
        choose=_first(passages[1::4], affordable),
        judge=_first(passages[3::4], affordable),
        sha256=sha256 or _sha256(passages),
        on=on,
    )


def _first(passages: Sequence[Passage], most_predictions: int) -> tuple[Passage, ...]:
    """As many as are needed, and as their logits may take."""
    taken: list[Passage] = []
    for one in passages:
        tokens = sum(len(each.tokens) for each in taken)
        scored = sum(each.predictions for each in (*taken, one))
        if taken and (tokens >= MOST_TOKENS or scored > most_predictions):
            break
        taken.append(one)
    return tuple(taken)


def _sha256(passages: Sequence[Passage]) -> str:
    key = hashlib.sha256()
    for one in passages:
        key.update(one.tokens.tobytes())
    return key.hexdigest()


def _own(model: NativeModel, threads: int, kept: Path, progress: Progress) -> list[Passage]:
    """What the model writes, drawn at temperature 1 from its own distribution."""
    if not kept.exists():
        written = _write(model, threads, progress)
        with appearing(kept) as partial, partial.open("wb") as file:
            np.save(file, written)
    return [Passage(tokens.astype(np.int32), 1) for tokens in np.load(kept)]


def _write(model: NativeModel, threads: int, progress: Progress) -> NDArray[np.int32]:
    """(passages, length). Each begins with the tokenizer's BOS, or else with a token drawn among all."""
    random = np.random.default_rng(SEED)
    length = min(OWN_LENGTH, model.context_trained)
    tokens = np.zeros((OWN_PASSAGES, length), np.int32)
    bos = model.vocab.bos
    tokens[:, 0] = bos if bos is not None else random.integers(0, model.vocab.size, OWN_PASSAGES)
    with ExitStack() as stack:
        context = ScoringContext(model, ScoringOptions(OWN_PASSAGES, length, OWN_PASSAGES, threads))
        stack.callback(context.close)
        for at in range(length - 1):
            progress("write a text", at, length - 1)
            spans = [Span(slot, at, tokens[slot, at : at + 1], 0) for slot in range(OWN_PASSAGES)]
            logits = context.compute(spans, fresh=at == 0)
            tokens[:, at + 1] = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    return tokens
