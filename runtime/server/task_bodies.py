"""The bodies of ``/v1/tasks/{name}``, ``/v1/rerank`` and ``/v1/classify``, and of text-embeddings-inference's
``/embed``, ``/rerank`` and ``/predict``. Pure functions and values; tasking.py has the road."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, Field, field_validator

from ...convert.errors import BadRequest
from .errors import shown
from .posted import ModelName, Part
from .tasking import Asked, Body

Count = Annotated[int, Field(ge=1)]


def _said(**values: Any) -> dict[str, Any]:
    """Only what was given."""
    return {name: value for name, value in values.items() if value is not None}


def _cut(result: dict[str, Any]) -> dict[str, Any]:
    return {"truncated": result["truncated"]} if "truncated" in result else {}


class TaskRequest(Body):
    """``task`` comes from the path. ``input``, or ``inputs`` as the hub's API has it: one, or a list."""

    task: str
    model: ModelName = None
    input: Any = Field(validation_alias=AliasChoices("input", "inputs"))
    parameters: dict[str, Any] | None = None
    stream: bool | None = None

    def asked(self) -> Asked:
        inputs = self.input if isinstance(self.input, list) else [self.input]
        if self.stream and len(inputs) != 1:
            raise BadRequest(f"one input can be streamed, and there are {len(inputs)}", param="stream")
        given = self.parameters or {}
        return Asked(self.model, self.task, inputs, self._written, given, streams=bool(self.stream))

    def _written(self, model: str, results: list[Any]) -> dict[str, Any]:
        return {"object": "list", "model": model, "task": self.task, "results": results}


class Document(Part):
    text: str


class RerankRequest(Body):
    """Cohere's and Jina's: documents as texts, or as objects with one."""

    model: ModelName = None
    query: str
    documents: Annotated[list[str | Document], Field(min_length=1)]
    top_n: Count | None = None
    return_documents: bool | None = None
    truncate: bool | None = None
    instruction: str | None = None

    def asked(self) -> Asked:
        texts = [one if isinstance(one, str) else one.text for one in self.documents]
        given = {"query": self.query, "documents": texts}
        said = _said(top_k=self.top_n, truncate=self.truncate, instruction=self.instruction)
        return Asked(self.model, "rerank", [given], self._written, said)

    def _written(self, model: str, results: list[Any]) -> dict[str, Any]:
        shows = self.return_documents is not False
        ranked = [
            {
                "index": one["index"],
                "relevance_score": one["score"],
                **({"document": {"text": one["document"]}} if shows else {}),
                **_cut(one),
            }
            for one in results[0]["results"]
        ]
        tokens = results[0]["tokens"]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "model": model, "results": ranked, "usage": usage}


class ClassifyRequest(Body):
    """vLLM's."""

    model: ModelName = None
    input: str | list[str]
    truncate: bool | None = None

    def asked(self) -> Asked:
        texts = [self.input] if isinstance(self.input, str) else self.input
        return Asked(self.model, "text-classification", texts, self._written, _said(truncate=self.truncate))

    def _written(self, model: str, results: list[Any]) -> dict[str, Any]:
        data = [
            {
                "index": index,
                "label": result["labels"][0]["label"],
                "labels": [entry["label"] for entry in result["labels"]],
                "probs": [entry["score"] for entry in result["labels"]],
                "num_classes": len(result["labels"]),
                **_cut(result),
            }
            for index, result in enumerate(results)
        ]
        return {"object": "list", "model": model, "data": data}


class Embed(Body):
    """text-embeddings-inference's ``/embed``."""

    inputs: str | list[str]
    model: ModelName = None
    normalize: bool | None = None
    truncate: bool | None = None
    prompt_name: str | None = None
    dimensions: Count | None = None

    def asked(self) -> Asked:
        texts = [self.inputs] if isinstance(self.inputs, str) else self.inputs
        given = _said(
            normalize=self.normalize is not False,  # its default
            truncate=self.truncate,
            prompt=self.prompt_name,
            dimensions=self.dimensions,
        )
        return Asked(self.model, "embeddings", texts, lambda _, results: [one["embedding"] for one in results], given)


class Rerank(Body):
    """text-embeddings-inference's ``/rerank``. With ``documents`` in place of ``texts`` it is ``/v1/rerank``, as
    llama.cpp has it."""

    query: str
    texts: Annotated[list[str], Field(min_length=1)] | None = None
    documents: Annotated[list[str | Document], Field(min_length=1)] | None = None
    model: ModelName = None
    raw_scores: bool | None = None
    return_text: bool | None = None
    return_documents: bool | None = None
    top_n: Count | None = None
    truncate: bool | None = None

    def examine(self) -> None:
        if (self.texts is None) == (self.documents is None):
            raise BadRequest("either texts or documents must be given", param="texts")
        theirs = ("raw_scores", "return_text") if self.texts is None else ("return_documents",)
        if wrong := next((name for name in theirs if getattr(self, name) is not None), None):
            raise BadRequest(f"{wrong} belongs to {'texts' if self.texts is None else 'documents'}", param=wrong)

    def asked(self) -> Asked:
        if self.documents is not None:
            names = ("model", "query", "documents", "top_n", "return_documents", "truncate")
            return RerankRequest(**{name: getattr(self, name) for name in names}).asked()
        given = {"query": self.query, "documents": self.texts}
        return Asked(self.model, "rerank", [given], self._written, _said(top_k=self.top_n, truncate=self.truncate))

    def _written(self, _model: str, results: list[Any]) -> list[dict[str, Any]]:
        score = "logit" if self.raw_scores else "score"
        return [
            {"index": one["index"], "score": one[score], **({"text": one["document"]} if self.return_text else {})}
            for one in results[0]["results"]
        ]


class Predict(Body):
    """text-embeddings-inference's ``/predict``: a text, a pair as a list of two, or a list of lists of one or two."""

    inputs: Any
    model: ModelName = None
    raw_scores: bool | None = None
    truncate: bool | None = None

    @field_validator("inputs")
    @classmethod
    def _known(cls, value: Any) -> Any:
        rows = value if isinstance(value, list) and all(isinstance(one, list) for one in value) else [value]
        if not rows or not all(_is_text_or_pair(one) for one in rows):
            raise ValueError(f"must be a text, a pair of texts, or a list of lists of these (got {shown(value)})")
        return value

    @property
    def _batched(self) -> bool:
        return isinstance(self.inputs, list) and isinstance(self.inputs[0], list)

    def asked(self) -> Asked:
        rows = self.inputs if self._batched else [self.inputs]
        texts = [dict(zip(("text", "text_pair"), [one] if isinstance(one, str) else one, strict=False)) for one in rows]
        return Asked(self.model, "text-classification", texts, self._written, _said(truncate=self.truncate))

    def _written(self, _model: str, results: list[Any]) -> Any:
        score = "logit" if self.raw_scores else "score"
        found = [[{"score": one[score], "label": one["label"]} for one in result["labels"]] for result in results]
        return found if self._batched else found[0]


def _is_text_or_pair(value: Any) -> bool:
    if isinstance(value, list):
        return 1 <= len(value) <= 2 and all(isinstance(one, str) for one in value)
    return isinstance(value, str)
