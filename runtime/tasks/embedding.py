"""Embeddings: a text as one vector, or as one per token; and how like each other texts are by them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...convert.errors import BadGGUF, BadRequest
from ...convert.progress import Progress, silent
from ..abilities import FEATURES
from .head import POOLINGS, Array, Head, normalized
from .text import Part

if TYPE_CHECKING:
    from .encoder import Encoder

SIMILARITIES: Mapping[str, Callable[[Array, Array], Array]] = {
    "cosine": lambda rows, one: normalized(rows) @ normalized(one),
    "dot": lambda rows, one: rows @ one,
    "euclidean": lambda rows, one: -np.linalg.norm(rows - one, axis=1),
    "manhattan": lambda rows, one: -np.abs(rows - one).sum(axis=1),
}
NATIVE_POOLINGS = {1: "mean", 2: "first", 3: "last"}  # llama_pooling_type


@dataclass(frozen=True, slots=True)
class Embeddings:
    """vectors: (texts, dimensions). tokens, cut: of each text, how many were read and how many left out."""

    vectors: NDArray[np.float32]
    tokens: tuple[int, ...]
    cut: tuple[int, ...]


def embed(
    encoder: Encoder,
    texts: Sequence[str | Sequence[Part]],
    *,
    prompt: str = "",
    pooling: str | None = None,
    normalize: bool | None = None,
    dimensions: int | None = None,
    truncate: bool = False,
    max_length: int | None = None,
    progress: Progress = silent,
) -> Embeddings:
    """One embedding per text. A list of token ids and texts is read as it is, with nothing before or around it.

    prompt: the name of one of the model's prompts, to put before each text. pooling: first, last, mean or max
    instead of what the file says; needed where it says nothing. normalize: to length 1; None leaves it to the model.
    dimensions: keep the first of them (and bring them back to length 1 if they had it), for models trained so.

    Raises:
        BadRequest: no such prompt or pooling, or neither the file nor you say how to pool; too many dimensions; no such
            token, or a prompt to be put before tokens.
        ContextLengthExceeded: a text is too long.
    """
    if prompt and not all(isinstance(text, str) for text in texts):
        raise BadRequest("a prompt is put before texts, not before token ids", param="prompt")
    before = prompt_text(encoder, prompt)
    head = pooled(encoder, pooling)
    length = encoder.length(truncate=truncate, max_length=max_length)
    encoded = encoder.encode_given(
        [before + text if isinstance(text, str) else text for text in texts], length, progress
    )
    found = encoder.read(encoded, head.run, progress)
    vectors = np.stack(found) if found else np.zeros((0, 0), np.float32)
    if normalize:
        vectors = normalized(vectors)
    if dimensions is not None and found:
        vectors = _shortened(vectors, dimensions)
    return Embeddings(vectors, tuple(len(text.ids) for text in encoded), tuple(text.cut for text in encoded))


def similarities(encoder: Encoder, source: str, sentences: Sequence[str], **settings: Any) -> list[float]:
    """How like ``source`` each sentence is: the cosine of the angle between their embeddings, or whatever the
    checkpoint says that its embeddings are compared by (distances as negative numbers)."""
    vectors = embed(encoder, [source, *sentences], **settings).vectors
    kind = str(encoder.metadata.get("ingle.similarity", "cosine"))
    if kind not in SIMILARITIES:
        raise BadGGUF(f"{encoder.name} compares embeddings by {kind!r}, which is unknown")
    return [float(value) for value in SIMILARITIES[kind](vectors[1:], vectors[0])]


def features(
    encoder: Encoder,
    texts: Sequence[str | Sequence[Part]],
    *,
    truncate: bool = False,
    max_length: int | None = None,
    progress: Progress = silent,
) -> list[Array]:
    """The states of the tokens of each text, (tokens, width)."""
    length = encoder.length(truncate=truncate, max_length=max_length)
    return encoder.read(encoder.encode_given(texts, length, progress), progress=progress)


def pooled(encoder: Encoder, pooling: str | None) -> Head:
    """What makes one vector of the states: the modules of the checkpoint, or plain pooling."""
    if pooling is None and encoder.head is not None and encoder.head.task == FEATURES:
        return encoder.head
    native = encoder.metadata.get(f"{encoder.model.architecture}.pooling_type")
    chosen = pooling or NATIVE_POOLINGS.get(int(native) if isinstance(native, int | np.integer) else 0, "")
    if chosen not in POOLINGS or chosen == "each":
        raise BadRequest(
            f"no pooling {chosen!r}" if chosen else f"{encoder.name} does not say how its embeddings are pooled",
            hint="choose one of first, last, mean, max (most models that say nothing were trained with mean)",
            param="pooling",
        )
    return Head(FEATURES, chosen, (), {}, (), "", 0.0)


def prompt_text(encoder: Encoder, name: str) -> str:
    """The text of a prompt, or of the default one where there is one; empty otherwise."""
    prompts: dict[str, Any] = json.loads(str(encoder.metadata.get("ingle.prompts", "{}")))
    wanted = name or str(encoder.metadata.get("ingle.default_prompt", ""))
    if not wanted:
        return ""
    if wanted not in prompts:
        raise BadRequest(
            f"the model has no prompt {wanted!r}", hint=f"it has {', '.join(prompts) or 'none'}", param="prompt"
        )
    return str(prompts[wanted])


def _shortened(vectors: Array, dimensions: int) -> Array:
    width = vectors.shape[1]
    if not 1 <= dimensions <= width:
        raise BadRequest(f"{dimensions} dimensions, where the model has {width}", param="dimensions")
    unit = bool(np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4))
    return normalized(vectors[:, :dimensions]) if unit else vectors[:, :dimensions]
