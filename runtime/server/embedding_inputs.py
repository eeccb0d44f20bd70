"""What the routes for embeddings take as their input: texts, token ids, and llama.cpp's objects. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from .continuation import is_token
from .errors import shown

Pooling = Literal["mean", "first", "cls", "last", "max", "none"]
POOLINGS: Mapping[str, str] = {"cls": "first"}
"""llama.cpp's names for ours."""
Mixture = list[str | int]
_Schema = str | list[int] | list[str | Mixture | dict[str, Any]] | dict[str, Any]


def inputs_of(value: Any) -> list[Any]:
    """The inputs of a task: each a text, or ``{"tokens": ...}``.

    A list that holds a token id is one input, and may hold texts as well; any other list is one of several inputs:
    texts, lists of token ids, ``{"prompt_string": text}``, ``{"content": [{"type": "text", "text": ...}]}``.

    Raises:
        ValueError: it is none of these.
    """
    if not isinstance(value, list) or any(is_token(part) for part in value):
        return [_one(value)]
    if not value:
        raise ValueError("there is nothing in it")
    return [_one(item) for item in value]


def _one(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return _of_object(value)
    if not isinstance(value, list) or not value:
        raise ValueError(f"must be a text, a list of token ids, or a list of these (got {shown(value)})")
    for part in value:
        if not isinstance(part, str) and not (is_token(part) and part >= 0):
            raise ValueError(f"{shown(part)} is neither a token id nor a text")
    return {"tokens": value}


def _of_object(value: Mapping[str, Any]) -> str:
    """The text of an object: as one, or as parts that stand side by side."""
    if isinstance(text := value.get("prompt_string"), str) and not value.get("multimodal_data"):
        return text
    parts = value.get("content")
    if not isinstance(parts, list) or not parts:
        raise ValueError(f"an object has a prompt_string or a list of content (got {shown(value)})")
    texts = [part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"only content of type 'text' can be read (got {shown(parts)})")
    return "".join(str(text) for text in texts)


Inputs = Annotated[list[Any], BeforeValidator(inputs_of, json_schema_input_type=_Schema)]
