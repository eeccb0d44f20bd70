"""llama.cpp's own ``/embeddings``: one vector for a text, or one for each of its tokens. tasking.py has the road."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import Field

from ...convert.errors import BadRequest
from .embedding_inputs import POOLINGS, Inputs, Pooling
from .posted import ModelName
from .tasking import Asked, Body

EUCLIDEAN = 2
LARGEST = 32760
"""The absolute value that ``embd_normalize: 0`` scales a vector to: what 16 bits hold."""


class EmbeddingRequest(Body):
    """``pooling`` is ours: llama.cpp's server is started with one. ``none``: the states of all tokens, as they are."""

    model: ModelName = None
    input: Inputs | None = None
    content: Inputs | None = None
    pooling: Pooling | None = None
    embd_normalize: Annotated[int, Field(ge=-1, le=64)] | None = None

    def examine(self) -> None:
        if (self.input is None) == (self.content is None):
            raise BadRequest("either input or content must be given", param="input")
        if self.pooling == "none" and self.embd_normalize not in (None, -1):
            raise BadRequest("the states of tokens are not normalized", param="embd_normalize")

    def asked(self) -> Asked:
        inputs = self.input if self.input is not None else self.content or []
        if self.pooling == "none":
            return Asked(self.model, "feature-extraction", inputs, self._states)
        given: dict[str, Any] = {"normalize": True} if self.embd_normalize in (None, EUCLIDEAN) else {}
        if self.pooling is not None:
            given["pooling"] = POOLINGS.get(self.pooling, self.pooling)
        return Asked(self.model, "embeddings", inputs, self._vectors, given)

    def _states(self, _model: str, results: list[Any]) -> list[dict[str, Any]]:
        return [{"index": index, "embedding": one["features"]} for index, one in enumerate(results)]

    def _vectors(self, _model: str, results: list[Any]) -> list[dict[str, Any]]:
        how = self.embd_normalize
        if how not in (None, -1, EUCLIDEAN):
            results = [{"embedding": _scaled(one["embedding"], int(how or 0))} for one in results]
        return [{"index": index, "embedding": [one["embedding"]]} for index, one in enumerate(results)]


def _scaled(vector: list[float], how: int) -> list[float]:
    """A vector whose norm of that order is 1; of order 0, whose largest absolute value is :data:`LARGEST`."""
    values = np.array(vector, np.float64)
    size = np.abs(values).max() / LARGEST if how == 0 else np.linalg.norm(values, how)
    scaled: list[float] = (values / size).tolist() if size else vector
    return scaled
