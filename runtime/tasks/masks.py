"""Fill-mask: the tokens that fit where a text has the mask token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...convert.errors import BadRequest, UnsupportedModel
from ...convert.progress import Progress, silent
from ..abilities import MASK
from .head import Array
from .heads import needed
from .scores import softmax
from .text import Encoded

if TYPE_CHECKING:
    from .encoder import Encoder

MOST_FILLINGS = 1000


@dataclass(frozen=True, slots=True)
class Filling:
    """A token in place of a mask: its probability, id and text, and the whole text with it."""

    score: float
    token: int
    token_str: str
    sequence: str


@dataclass(frozen=True, slots=True)
class Filled:
    """For each mask of a text, in order, the fillings, the most probable first; cut: tokens that were left out."""

    masks: tuple[tuple[Filling, ...], ...]
    cut: int = 0


def fill(
    encoder: Encoder,
    texts: Sequence[str],
    *,
    top_k: int = 5,
    targets: Sequence[str] = (),
    truncate: bool = False,
    max_length: int | None = None,
    progress: Progress = silent,
) -> list[Filled]:
    """The ``top_k`` most probable tokens for each mask of each text.

    targets: only these, each of which must be one token.

    Raises:
        UnsupportedModel: the model fills no masks. BadRequest: a text has no mask, or a target is not one token.
    """
    head = needed(encoder, MASK, "fill-mask")
    mask = encoder.text.special_id("mask")
    if mask is None:
        raise UnsupportedModel(f"{encoder.name} names no mask token")
    if not 1 <= top_k <= MOST_FILLINGS:
        raise BadRequest(f"top_k is {top_k}, and must be from 1 to {MOST_FILLINGS}", param="top_k")
    chosen = np.array([_target(encoder, target) for target in dict.fromkeys(targets)], np.int64)
    length = encoder.length(truncate=truncate, max_length=max_length)
    encoded = encoder.encode_all(texts, length, progress)
    places = [np.flatnonzero(np.array(text.ids) == mask) for text in encoded]
    for text, found, tokens in zip(texts, places, encoded, strict=True):
        if not len(found):
            name = encoder.text.decode([mask], special=True)
            where = f"what is left of {text[:60]!r}" if tokens.cut else f"{text[:60]!r}"
            raise BadRequest(
                f"there is no {name} in {where}", hint=f"write {name} where a token is to be found", param="input"
            )
    states = encoder.read(encoded, progress=progress)
    return [
        Filled(
            tuple(_fillings(encoder, text, int(place), row, top_k, chosen, alone=len(found) == 1)
                  for place, row in zip(found, softmax(head.run(state[found])), strict=True)),
            text.cut,
        )
        for text, found, state in zip(encoded, places, states, strict=True)
    ]  # fmt: skip


def _fillings(
    encoder: Encoder, text: Encoded, place: int, scores: Array, top_k: int, targets: NDArray[np.int64], *, alone: bool
) -> tuple[Filling, ...]:
    candidates = targets if len(targets) else np.arange(len(scores))
    count = min(top_k, len(candidates))
    best = np.argpartition(-scores[candidates], count - 1)[:count]
    best = best[np.argsort(-scores[candidates][best], kind="stable")]
    return tuple(
        Filling(
            float(scores[token]),
            int(token),
            encoder.text.decode([int(token)], special=True),
            _sequence(encoder, text, place, int(token), special=not alone),
        )
        for token in candidates[best]
    )


def _sequence(encoder: Encoder, text: Encoded, place: int, token: int, *, special: bool) -> str:
    ids = [*text.ids[:place], token, *text.ids[place + 1 :]]
    padding = encoder.text.special_id("padding")
    return encoder.text.decode([one for one in ids if one != padding], special=special)


def _target(encoder: Encoder, target: str) -> int:
    """The id of a token, by how the vocabulary spells it or by its text."""
    tokenizer = encoder.text.tokenizer
    spelled = tokenizer.token_to_id(target)
    if spelled is not None:
        return int(spelled)
    ids = encoder.text.plain(target)
    if len(ids) != 1:
        raise BadRequest(f"the target {target!r} is {len(ids)} tokens, and must be one", param="targets")
    return int(ids[0])
