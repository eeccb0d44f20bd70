"""Whether a schema, an expression or a grammar can be compiled, asked before anything is generated."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ...convert.errors import BadRequest
from .output import Output, json_rule, slashed

if TYPE_CHECKING:
    from llguidance import LLTokenizer

MOST_BYTES = 256 << 10
MOST_GRAMMAR_BYTES = 64 << 10
MOST_CHOICES = 5000
MOST_CHECKS = 500

MAPS = ("properties", "patternProperties", "$defs", "definitions")
LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
SINGLES = ("items", "additionalProperties")


def checked(output: Output) -> Output:
    """``output``, a grammar in GBNF turned into Lark.

    Raises:
        BadRequest: it cannot be compiled. Of a schema, the message has the JSON pointer and the keyword.
    """
    if output.shape == "json":
        check_schema(output.value, output.param)
    elif output.shape == "regex":
        _check(f"start: CONTENT\nCONTENT: /{slashed(output.value)}/", output.param, len(output.value))
    elif output.shape == "choice":
        if not 1 <= len(output.value) <= MOST_CHOICES or not all(output.value):
            raise BadRequest(f"{output.param} must have 1 to {MOST_CHOICES} texts, none empty", param=output.param)
    else:
        return Output("lark", _lark(output.value, output.param), output.param)
    return output


def check_schema(schema: Any, param: str) -> None:
    """Raise :class:`BadRequest` for a JSON schema that answers cannot be held to."""
    if len(json.dumps(schema)) > MOST_BYTES:
        raise BadRequest(f"{param} is a schema of more than {MOST_BYTES >> 10} KiB", param=param)
    message = _fault(schema)
    if not message:
        if message := _dead_end(f"start: {json_rule(schema)}"):
            raise BadRequest(f"{param} cannot be kept by any answer: {message}", param=param)
        return
    pointer, keyword, message = _place(schema, message)
    where = f"{pointer or '/'}" + (f", keyword {keyword!r}" if keyword else "")
    raise BadRequest(f"{param} cannot be compiled, at {where}: {message}", param=param)


def _lark(grammar: str, param: str) -> str:
    from llguidance.gbnf_to_lark import any_to_lark

    try:
        lark = any_to_lark(grammar) if "::=" in grammar else grammar
    except Exception as error:  # the converter of a foreign notation: anything can come out
        raise BadRequest(f"{param} is no GBNF: {error!s:.200}", param=param) from error
    _check(lark, param, len(grammar))
    return str(lark)


def _check(lark: str, param: str, size: int) -> None:
    if size > MOST_GRAMMAR_BYTES:
        raise BadRequest(f"{param} has more than {MOST_GRAMMAR_BYTES >> 10} KiB", param=param)
    if message := _complaint(lark):
        raise BadRequest(f"{param} cannot be compiled: {message}", param=param)
    if message := _dead_end(lark):
        raise BadRequest(f"{param} cannot be kept by any answer: {message}", param=param)


def _complaint(lark: str) -> str:
    from llguidance import LLMatcher

    wrong, messages = LLMatcher.validate_grammar_with_warnings(lark)
    return " ".join(messages[0].split())[:300] if wrong else ""


def _dead_end(lark: str) -> str:
    """Why no answer can begin: a rule that is nothing but itself compiles, too."""
    from llguidance import LLMatcher

    matcher = LLMatcher(_bytes(), lark, log_level=0)
    matcher.compute_bitmask()
    return " ".join(matcher.get_error().split("<state>")[0].split())[:300] if matcher.is_error() else ""


@functools.cache
def _bytes() -> LLTokenizer:
    from llguidance import LLTokenizer, TokenizerWrapper

    return LLTokenizer(TokenizerWrapper(_Bytes()), n_vocab=len(_Bytes.tokens))


class _Bytes:
    """A vocabulary of the 256 bytes and an end: whatever can be said can be said in it."""

    tokens = (*(bytes([byte]) for byte in range(256)), b"\xff<end>")
    eos_token_id, bos_token_id, special_token_ids = 256, None, (256,)

    def __call__(self, text: Any) -> list[int]:
        return list(text if isinstance(text, bytes) else str(text).encode())


def _fault(schema: Any) -> str:
    return _complaint(f"start: {json_rule(schema)}")


def _place(schema: Any, message: str) -> tuple[str, str, str]:
    """The innermost part that cannot be compiled by itself: its pointer, its keyword, and why."""
    shared = {key: schema[key] for key in ("$defs", "definitions") if isinstance(schema, Mapping) and key in schema}
    pointer, checks = "", 0
    while isinstance(schema, Mapping):
        for step, child in _children(schema):
            checks += 1
            whole = {**shared, **child} if isinstance(child, Mapping) else child
            if checks < MOST_CHECKS and (found := _fault(whole)):
                pointer, schema, message = f"{pointer}/{step}", child, found
                break
        else:
            break
    return pointer, _keyword(schema, shared), message


def _children(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key in MAPS:
        if isinstance(schema.get(key), Mapping):
            yield from ((f"{key}/{_escaped(name)}", child) for name, child in schema[key].items())
    for key in LISTS:
        if isinstance(schema.get(key), list):
            yield from ((f"{key}/{index}", child) for index, child in enumerate(schema[key]))
    for key in SINGLES:
        if isinstance(schema.get(key), Mapping):
            yield key, schema[key]


def _keyword(schema: Any, shared: Mapping[str, Any]) -> str:
    """The first keyword without which the schema compiles."""
    if not isinstance(schema, Mapping):
        return ""
    for key in schema:
        if key not in shared and not _fault({**shared, **{k: v for k, v in schema.items() if k != key}}):
            return str(key)
    return ""


def _escaped(name: str) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")
