"""Forty and more safetensors files whose headers lie. Name -> bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any


def entry(start: Any, end: Any, shape: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def file(header: Any, num_bytes: int = 8) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(num_bytes)


ONE = entry(0, 8, [2])
TEXT = json.dumps(ONE).encode()


def files() -> Iterator[tuple[str, bytes]]:
    """All cases."""
    yield from lengths()
    yield from entries()
    yield from headers()
    yield from bombs()


def lengths() -> Iterator[tuple[str, bytes]]:
    yield "empty", b""
    yield "seven bytes", bytes(7)
    yield "no header", bytes(8)
    for length in (17, 1 << 31, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
        yield f"a header of {length}", struct.pack("<Q", length) + bytes(16)
    yield "a header cut off", file({"a": ONE})[:40]
    yield "a sound file cut off", file({"a": ONE})[:-1]
    yield "a byte too many", file({"a": ONE}, 9)


def entries() -> Iterator[tuple[str, bytes]]:
    for name, wrong in {
        "reversed": entry(8, 0, [2]),
        "negative": entry(-8, 0, [2]),
        "2^63": entry(1 << 63, (1 << 63) + 8, [2]),
        "2^64 wraps": entry((1 << 64) - 8, 1 << 64, [2]),
        "a fraction": entry(0, 8.0, [2]),
        "a text": entry("0", "8", [2]),
        "null": entry(None, 8, [2]),
        "true": entry(False, 4, [True]),
        "a shape too large": entry(0, 8, [1 << 40, 1 << 40]),
        "a shape that wraps": entry(0, 8, [1 << 62, 4, 2]),
        "a shape of other size": entry(0, 8, [3]),
        "a negative shape": entry(0, 8, [-2]),
        "a nested shape": entry(0, 8, [[2]]),
        "a thousand dimensions": entry(0, 4, [1] * 1000),
        "no such dtype": entry(0, 8, [2], "F33"),
        "a dtype as list": entry(0, 8, [2], ["F32"]),
        "no dtype": {"shape": [2], "data_offsets": [0, 8]},
        "one more field": {**ONE, "__reduce__": "os.system"},
        "three offsets": {**ONE, "data_offsets": [0, 4, 8]},
        "a number": 5,
        "a list": [ONE],
    }.items():
        yield f"entry: {name}", file({"a": wrong})


def headers() -> Iterator[tuple[str, bytes]]:
    yield "an overlap", file({"a": ONE, "b": entry(4, 12, [2])}, 12)
    yield "the same bytes twice", file({"a": ONE, "b": ONE})
    yield "a hole", file({"a": ONE, "b": entry(12, 20, [2])}, 20)
    yield "a hole first", file({"a": entry(4, 12, [2])}, 12)
    yield "a name twice", file(b'{"a":' + TEXT + b',"a":' + TEXT + b"}")
    yield "a field twice", file(b'{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}')
    yield "a list for a header", file(b"[]", 0)
    yield "a number for a header", file(b"1", 0)
    yield "half a header", file(b'{"a":', 0)
    yield "not UTF-8", file(b'{"\xff":' + TEXT + b"}")
    yield "a lone surrogate as offset", file(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,"\\ud800"]}}')
    yield "NaN", file(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}')
    yield "metadata of numbers", file({"a": ONE, "__metadata__": {"n": 1}})
    yield "metadata as list", file({"a": ONE, "__metadata__": ["x"]})
    yield "metadata of 2 MB", file({"a": ONE, "__metadata__": {"n": "x" * (2 << 20)}})


def bombs() -> Iterator[tuple[str, bytes]]:
    yield "nested a million times", file(b"[" * 1_000_000, 0)
    yield "nested objects", file(b'{"a":' * 200_000, 0)
    yield "a number of a million digits", file(b'{"a":' + b"9" * 1_000_000 + b"}", 0)
    yield "100,001 tensors", file({f"t{i}": entry(0, 0, [0]) for i in range(100_001)}, 0)
    yield "400,000 tensors", file(b"{" + b",".join(b'"%d":%s' % (i, TEXT) for i in range(400_000)) + b"}")
    yield "8 million lists", file(b'{"a":[' + b"[]," * 8_000_000 + b"[]]}", 0)
    yield "30 MB of blanks", file(b" " * (30 << 20) + b"[]", 0)
    yield "40 MB of blanks", file(b" " * (40 << 20) + b"{}", 0)
    yield "a name of 30 MB", file(b'{"' + b"a" * (30 << 20) + b'":5}', 0)
