"""Ollama's ``/api/embed`` and ``/api/embeddings``. Pure values; tasking.py has the road."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from .ollama_fields import bare_name
from .tasking import Asked, Body, texts_of

Model = Annotated[str, Field(min_length=1, max_length=512), BeforeValidator(bare_name)]


class EmbedRequest(Body):
    """``truncate`` is leave to cut what is too long; without it nothing is cut."""

    model: Model
    input: Annotated[list[str], BeforeValidator(texts_of, json_schema_input_type=str | list[str])]
    truncate: bool | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None

    def asked(self) -> Asked:
        given = {"dimensions": self.dimensions, "truncate": self.truncate}
        parameters = {name: value for name, value in given.items() if value is not None}
        return Asked(self.model, "embeddings", self.input, _written, parameters)


class OldEmbedRequest(Body):
    """The older one, for one text."""

    model: Model
    prompt: str

    def asked(self) -> Asked:
        return Asked(
            self.model, "embeddings", [self.prompt], lambda model, results: {"embedding": results[0]["embedding"]}
        )


def _written(model: str, results: list[Any]) -> dict[str, Any]:
    vectors = [result["embedding"] for result in results]
    return {"model": model, "embeddings": vectors, "prompt_eval_count": sum(result["tokens"] for result in results)}
