"""Answers that random JSON schemas demand, judged by a validator that is not ours, and what the demand costs.

    python -m bench.schemas MODEL.gguf [--count 1000] [--seed 0] [--clients 8]
    python -m bench.schemas MODEL.gguf --cost

Each schema is asked for once streamed and once whole, at a temperature of 1, so a model of random weights writes what
the grammar lets it. An answer that ended by itself must fit its schema; the others met the limit of their tokens. Needs
``jsonschema``. --cost: tokens a second with a demand by those without one, in turns, of one stream.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import statistics
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .facts import vocabulary
from .peers import Server, ingle_server

MOST_TOKENS = 300
ROUNDS = 5
COST_TOKENS = 192
DEEPEST = 3
NAMES = ("name", "id", "größe", "tags", "a b", "x", "items", "日本", "is_ok", "value")
LONG = MappingProxyType({"type": "array", "items": {"type": "string", "minLength": 40}, "minItems": 200})

Schema = dict[str, Any]


def any_schema(draw: random.Random, depth: int = 0) -> Schema:
    """A random schema of nested objects and arrays, of ranges, lengths, patterns, enumerations and references."""
    plain = (_string, _integer, _number, _fixed, _choice)
    deep = (_object, _object, _array, _either)
    return draw.choice(plain if depth == DEEPEST else (*plain, *deep) if depth else deep)(draw, depth)


def _string(draw: random.Random, _: int) -> Schema:
    low = draw.randrange(4)
    return draw.choice(
        (
            {"type": "string", "maxLength": draw.randrange(1, 20)},
            {"type": "string", "minLength": low, "maxLength": low + draw.randrange(1, 12)},
            {"type": "string", "pattern": draw.choice((r"^[a-z]{2,8}$", r"^\d{3}-\d{4}$", r"^(yes|no|maybe)$"))},
            {"type": "string", "format": draw.choice(("date", "uuid", "ipv4"))},
        )
    )


def _integer(draw: random.Random, _: int) -> Schema:
    low = draw.randrange(-50, 50)
    return {"type": "integer", "minimum": low, "maximum": low + draw.randrange(1, 5000)}


def _number(draw: random.Random, _: int) -> Schema:
    return {"type": "number", "minimum": 0, "exclusiveMaximum": draw.randrange(1, 100)}


def _fixed(draw: random.Random, _: int) -> Schema:
    return draw.choice(({"type": "boolean"}, {"type": "null"}, {"const": draw.choice((1, "ö", True, [1, 2]))}))


def _choice(draw: random.Random, _: int) -> Schema:
    return {"enum": draw.sample(["red", "grün", 3, None, False, {"k": 1}], draw.randrange(1, 5))}


def _object(draw: random.Random, depth: int) -> Schema:
    names = draw.sample(NAMES, draw.randrange(1, 5))
    schema: Schema = {
        "type": "object",
        "properties": {name: any_schema(draw, depth + 1) for name in names},
        "required": [name for name in names if draw.random() < 0.7],
        "additionalProperties": False,
    }
    if depth == 0 and draw.random() < 0.3:
        schema["$defs"] = {"part": any_schema(draw, DEEPEST)}
        schema["properties"]["part"] = {"$ref": "#/$defs/part"}
    return schema


def _array(draw: random.Random, depth: int) -> Schema:
    low = draw.randrange(3)
    return {"type": "array", "items": any_schema(draw, depth + 1), "minItems": low, "maxItems": low + draw.randrange(4)}


def _either(draw: random.Random, depth: int) -> Schema:
    return {"anyOf": [any_schema(draw, depth + 1) for _ in range(draw.randrange(2, 4))]}


def answered(server: Server, schema: Mapping[str, Any], *, stream: bool, tokens: int = MOST_TOKENS) -> tuple[str, str]:
    """The text, and why it ended."""
    body = {
        "model": server.model,
        "messages": [{"role": "user", "content": "Write."}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}},
        "temperature": 1,
        "max_tokens": tokens,
        "stream": stream,
    }
    if not stream:
        choice = json.loads(_posted(server, body))["choices"][0]
        return choice["message"]["content"] or "", choice["finish_reason"]
    text, reason = "", ""
    for line in _posted(server, body).splitlines():
        if line.startswith("data: {"):
            choices = json.loads(line.removeprefix("data: "))["choices"]
            text += "".join(choice["delta"].get("content") or "" for choice in choices)
            reason = next((choice["finish_reason"] for choice in choices if choice["finish_reason"]), reason)
    return text, reason


def _posted(server: Server, body: Mapping[str, Any]) -> str:
    request = urllib.request.Request(
        f"{server.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as response:
        return str(response.read().decode("utf-8"))


def verdict(server: Server, schema: Schema, *, stream: bool) -> str:
    text, reason = answered(server, schema, stream=stream)
    if reason != "stop":
        return reason
    validator = importlib.import_module("jsonschema").Draft202012Validator
    try:
        errors = list(validator(schema, format_checker=validator.FORMAT_CHECKER).iter_errors(json.loads(text)))
    except json.JSONDecodeError as error:
        errors = [error]
    if errors:
        print(f"INVALID: {json.dumps(schema)}\n  {text!r}: {errors[0]}", flush=True)
    return "invalid" if errors else "valid"


def judged(server: Server, count: int, seed: int, clients: int) -> Counter[str]:
    draw = random.Random(seed)
    schemas = [any_schema(draw) for _ in range(count)]
    with ThreadPoolExecutor(clients) as pool:
        tasks: Sequence[Callable[[], str]] = [
            lambda schema=schema, stream=stream: verdict(server, schema, stream=stream)  # type: ignore[misc]
            for schema in schemas
            for stream in (True, False)
        ]
        return Counter(pool.map(lambda task: task(), tasks))


def cost(server: Server) -> float:
    """What is left of the speed under a demand: text of any kind in long strings, so that little of it is forced."""
    ratios = []
    for _ in range(ROUNDS):
        asked = _tokens_per_s(lambda: answered(server, dict(LONG), stream=False, tokens=COST_TOKENS))
        free = _tokens_per_s(lambda: server.complete(server.fresh_tokens(8), COST_TOKENS))
        ratios.append(asked / free)
        print(f"{asked:.1f} tokens/s demanded, {free:.1f} free", flush=True)
    return statistics.median(ratios)


def _tokens_per_s(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return COST_TOKENS / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--cost", action="store_true")
    plan = parser.parse_args()
    with ingle_server(plan.model, vocabulary(plan.model), "--ctx", "1024", "--speculate", "off") as server:
        if plan.cost:
            print(f"{cost(server):.3f} of the speed without a demand")
            return
        counted = judged(server, plan.count, plan.seed, plan.clients)
    print(f"{plan.count} schemas, streamed and whole: {dict(counted)}")
    raise SystemExit(counted["invalid"] > 0)


if __name__ == "__main__":
    main()
