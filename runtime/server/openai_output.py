"""The fields that shape an answer's content: ``response_format``, and the extras of other servers for the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...convert.errors import BadRequest
from ..chat import Output
from .errors import shown

EXTRAS: Mapping[str, str] = {
    "json_schema": "json",
    "guided_json": "json",
    "regex": "regex",
    "guided_regex": "regex",
    "choice": "choice",
    "guided_choice": "choice",
    "grammar": "lark",
    "guided_grammar": "lark",
}
NESTED: Mapping[str, str] = {"json": "json", "regex": "regex", "choice": "choice", "grammar": "lark"}


def output_of(fields: Mapping[str, Any]) -> Output | None:
    """The one shape that a request asks for.

    Raises:
        BadRequest: there are two, or one that makes no sense; ``param`` names it.
    """
    found = [_extra(name, shape, fields[name]) for name, shape in EXTRAS.items() if fields.get(name) not in (None, "")]
    if (given := fields.get("response_format")) is not None and (output := _response_format(given)) is not None:
        found.append(output)
    if (given := fields.get("structured_outputs")) is not None:
        found += _structured(given)
    if len(found) > 1:
        raise BadRequest(f"{found[0].param} and {found[1].param} both shape the answer", param=found[1].param)
    return found[0] if found else None


def _extra(name: str, shape: str, value: Any) -> Output:
    if shape == "choice":
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise BadRequest(f"{name} must be a list of texts (got {shown(value)})", param=name)
        return Output("choice", tuple(value), name)
    if shape == "json":
        if not isinstance(value, Mapping | bool):
            raise BadRequest(f"{name} must be a JSON schema (got {shown(value)})", param=name)
        return Output("json", value, name)
    if not isinstance(value, str):
        raise BadRequest(f"{name} must be a text (got {shown(value)})", param=name)
    return Output("regex", value, name) if shape == "regex" else Output("lark", value, name)


def _structured(given: Any) -> list[Output]:
    if not isinstance(given, Mapping):
        raise BadRequest("structured_outputs must be an object", param="structured_outputs")
    for name in given:
        if name not in NESTED:
            raise BadRequest(f"structured_outputs.{name} is not supported", param=f"structured_outputs.{name}")
    return [_extra(f"structured_outputs.{name}", NESTED[name], value) for name, value in given.items()]


def _response_format(given: Any) -> Output | None:
    kind = given.get("type") if isinstance(given, Mapping) else None
    if kind == "text":
        return None
    if kind == "json_object":
        schema = given.get("schema", {"type": "object"})
        return _extra("response_format.schema" if "schema" in given else "response_format", "json", schema)
    if kind == "json_schema":
        wrapper = given.get("json_schema")
        schema = wrapper.get("schema") if isinstance(wrapper, Mapping) else None
        if not isinstance(schema, Mapping):
            raise BadRequest("response_format.json_schema.schema is missing", param="response_format.json_schema")
        return Output("json", schema, "response_format.json_schema.schema")
    raise BadRequest(
        f"response_format.type must be text, json_object or json_schema (got {shown(kind)})",
        param="response_format.type",
    )
