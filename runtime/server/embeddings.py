"""``/v1/embeddings``, and Ollama's ``/api/embed`` and ``/api/embeddings``: texts in, vectors out, nothing cut."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from fastapi import Request
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, ValidationError
from starlette.responses import JSONResponse, Response

from ...convert.errors import BadRequest, ContextLengthExceeded, UnsupportedModel
from ..tasks.process import Embedded
from .body import read_json
from .errors import UnknownParameter, UnsupportedParameter, of_validation, shown
from .exchange import IGNORED_HEADER, Exchange, printable
from .keeping import seconds_of
from .ollama_fields import bare_name
from .openai_fields import Part, harmless
from .sse import ClientLeft, Gone, attended

MOST_INPUTS = 2048

Parsed = TypeVar("Parsed", bound="EmbeddingFields")


@runtime_checkable
class Embeds(Protocol):
    """A loaded model that embeds."""

    def embed(self, texts: list[str], left: threading.Event | None = None) -> Embedded: ...


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class EmbeddingFields(Part):
    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType({})
    text_field: ClassVar[str] = "input"

    model: Annotated[str, Field(min_length=1, max_length=512), BeforeValidator(bare_name)]
    dimensions: Annotated[int, Field(ge=1)] | None = None
    keep_alive: Any = None

    @classmethod
    def parse(cls: type[Parsed], body: Mapping[str, Any]) -> Parsed:
        """Raise :class:`BadRequest` that names the field, or return the request."""
        for name, values in cls.unsupported.items():
            if not harmless(body.get(name), values):
                raise UnsupportedParameter(f"{name} is not supported (got {shown(body[name])})", param=name)
        try:
            asked = cls.model_validate(dict(body))
        except ValidationError as error:
            raise of_validation(error) from error
        seconds_of(asked.keep_alive)
        return asked

    @property
    def texts(self) -> list[str]:
        raise BadRequest("there is nothing to embed")

    def ignored(self, strict: bool) -> list[str]:
        names = [name for name in self.unknown() if name not in self.unsupported]
        if strict and names:
            raise UnknownParameter(f"{names[0]} is not a field of this request", param=names[0])
        return names

    def answer(self, model: str, embedded: Embedded) -> dict[str, Any]:
        raise BadRequest("there is nothing to embed")

    def cut(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """The first ``dimensions`` of each, of length 1 again: what models trained for it are made for."""
        if self.dimensions is None or self.dimensions == vectors.shape[1]:
            return vectors
        if self.dimensions > vectors.shape[1]:
            raise BadRequest(f"dimensions is {self.dimensions}; this model has {vectors.shape[1]}", param="dimensions")
        short = vectors[:, : self.dimensions]
        return np.asarray(short / np.maximum(np.linalg.norm(short, axis=1, keepdims=True), 1e-12), np.float32)


class EmbeddingsRequest(EmbeddingFields):
    """OpenAI's."""

    input: Annotated[
        list[Any],
        Field(min_length=1, max_length=MOST_INPUTS),
        BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
    ]
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None

    @property
    def texts(self) -> list[str]:
        return _texts(self.input)

    def answer(self, model: str, embedded: Embedded) -> dict[str, Any]:
        rows = self.cut(embedded.vectors)
        data = [
            {"object": "embedding", "index": index, "embedding": self._encoded(row)} for index, row in enumerate(rows)
        ]
        usage = {"prompt_tokens": embedded.num_tokens, "total_tokens": embedded.num_tokens}
        return {"object": "list", "data": data, "model": model, "usage": usage}

    def _encoded(self, row: NDArray[np.float32]) -> Any:
        if self.encoding_format == "base64":
            return base64.b64encode(row.astype("<f4").tobytes()).decode()
        return row.tolist()


class EmbedRequest(EmbeddingFields):
    """Ollama's."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType({"truncate": (None, False)})

    input: Annotated[
        list[Any],
        Field(min_length=1, max_length=MOST_INPUTS),
        BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
    ]
    options: dict[str, Any] | None = None

    @property
    def texts(self) -> list[str]:
        return _texts(self.input)

    def answer(self, model: str, embedded: Embedded) -> dict[str, Any]:
        rows = self.cut(embedded.vectors).tolist()
        return {"model": model, "embeddings": rows, "prompt_eval_count": embedded.num_tokens}


class OldEmbedRequest(EmbeddingFields):
    """Ollama's older one, for one text."""

    text_field: ClassVar[str] = "prompt"

    prompt: str
    options: dict[str, Any] | None = None

    @property
    def texts(self) -> list[str]:
        return [self.prompt]

    def answer(self, model: str, embedded: Embedded) -> dict[str, Any]:
        return {"embedding": self.cut(embedded.vectors)[0].tolist()}


def _texts(given: list[Any]) -> list[str]:
    for index, item in enumerate(given):
        if not isinstance(item, str):
            raise UnsupportedParameter(
                f"input[{index}]: texts are embedded here, token ids are not (got {shown(item)})",
                param=f"input[{index}]",
            )
        if not item:
            raise BadRequest(f"input[{index}] is empty", param=f"input[{index}]")
    return given


async def embedded(exchange: Exchange, request: Request, dialect: type[EmbeddingFields]) -> Response:
    """The answer to a request for embeddings; nothing once its client has left, and then no more work."""
    left = threading.Event()
    try:
        asked = dialect.parse(await read_json(request))
        texts = asked.texts
        request.state.ignored = printable(asked.ignored(exchange.strict))
        headers = {IGNORED_HEADER: request.state.ignored} if request.state.ignored else {}
        return JSONResponse(await attended(request.receive, _answer(exchange, asked, texts, left)), headers=headers)
    except ClientLeft:
        return Gone()
    finally:
        left.set()


async def _answer(
    exchange: Exchange, asked: EmbeddingFields, texts: list[str], left: threading.Event
) -> dict[str, Any]:
    lease = await exchange.pool.lease(asked.model)
    try:
        model = lease.model
        if not isinstance(model, Embeds):
            raise UnsupportedModel(
                f"{lease.name} generates text and gives no embeddings", hint="load an embedding model", param="model"
            )
        if (seconds := seconds_of(asked.keep_alive)) is not None:
            exchange.pool.keep(lease.place, seconds)
        return asked.answer(lease.name, await asyncio.to_thread(model.embed, texts, left))
    except ContextLengthExceeded as error:
        error.param = asked.text_field
        raise
    finally:
        lease.release()
