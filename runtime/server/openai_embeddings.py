"""``/v1/embeddings``: OpenAI's. Pure functions and values; tasking.py has the road."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ...convert.errors import BadRequest
from .embedding_inputs import POOLINGS, Inputs, Pooling
from .posted import ModelName
from .tasking import Asked, Body


class EmbeddingRequest(Body):
    """``prompt_name``, ``truncate`` and ``pooling`` are ours: a prompt of the model, leave to cut what is too long, and
    how to make one vector where the model does not say, which then has length 1."""

    model: ModelName = None
    input: Inputs
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None
    prompt_name: str | None = None
    truncate: bool | None = None
    pooling: Pooling | None = None

    def examine(self) -> None:
        if self.pooling == "none":
            raise BadRequest("an embedding is one vector", hint="/embeddings gives one a token", param="pooling")

    def asked(self) -> Asked:
        pooling = POOLINGS.get(self.pooling, self.pooling) if self.pooling else None
        given = {
            "dimensions": self.dimensions,
            "prompt": self.prompt_name,
            "truncate": self.truncate,
            "pooling": pooling,
            "normalize": True if pooling else None,
        }
        return Asked(
            self.model,
            "embeddings",
            self.input,
            self._written,
            {name: value for name, value in given.items() if value is not None},
        )

    def _written(self, model: str, results: list[Any]) -> dict[str, Any]:
        tokens = sum(result["tokens"] for result in results)
        cut = {str(index): result["truncated"] for index, result in enumerate(results) if "truncated" in result}
        answer = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": self._vector(result["embedding"])}
                for index, result in enumerate(results)
            ],
            "model": model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        return {**answer, "ingle": {"truncated": cut}} if cut else answer

    def _vector(self, values: list[float]) -> list[float] | str:
        if self.encoding_format != "base64":
            return values
        return base64.b64encode(np.array(values, "<f4").tobytes()).decode()
