"""The GGUF reader and writer: what is written is read back, and nothing malformed gets through."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingle.convert import gguf
from ingle.convert.errors import BadGGUF
from ingle.convert.ggml import TYPES
from ingle.convert.gguf import TensorPlan

METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "flag": True,
    "count": 7,
    "ratio": 0.5,
    "negative": np.int32(-3),
    "large": np.uint64(1 << 40),
    "precise": np.float64(0.1),
    "texts": ["", "é", "line\nbreak"],
    "no.texts": [],
    "numbers": np.array([1, -2, 3], np.int16),
    "flags": np.array([True, False]),
}


def plan(name: str, values: np.ndarray, type_name: str = "F32", shape: tuple[int, ...] | None = None) -> TensorPlan:
    return TensorPlan(name, shape or values.shape, TYPES[type_name], lambda: [values])


PLANS = [
    plan("a.weight", np.arange(12, dtype=np.float32).reshape(3, 4)),
    plan("b.weight", np.arange(6, dtype=np.uint16).reshape(2, 3), "BF16"),
    plan("c.weight", np.arange(68, dtype=np.uint8).reshape(2, 34), "Q8_0", (2, 32)),
]


def write(path: Path, metadata: dict[str, Any] = METADATA, plans: list[TensorPlan] = PLANS) -> Path:
    gguf.write(path, metadata, plans)
    return path


def equal(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    return type(left) is type(right) and left == right


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    file = gguf.read(write(tmp_path / "a.gguf"))
    assert list(file.metadata) == list(METADATA)
    assert all(equal(METADATA[key], file.metadata[key]) for key in METADATA)
    assert file.tensor("a.weight")[2, 3] == 11
    assert file.tensor("b.weight").dtype == np.uint16
    assert file.tensor("c.weight").shape == (2, 34)
    assert all(info.offset % 32 == 0 for info in file.tensors.values())


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.gguf"), write(tmp_path / "b.gguf")
    assert first.read_bytes() == second.read_bytes()
    again = gguf.read(first)
    copies = [TensorPlan(i.name, i.shape, i.type, lambda i=i: [again.tensor(i.name)]) for i in again.tensors.values()]
    assert write(tmp_path / "c.gguf", dict(again.metadata), copies).read_bytes() == first.read_bytes()


def test_the_published_reader_agrees(tmp_path: Path) -> None:
    from gguf import GGUFReader

    reader = GGUFReader(write(tmp_path / "a.gguf"))
    assert [tensor.name for tensor in reader.tensors] == [plan.name for plan in PLANS]
    assert reader.tensors[0].data.tolist() == np.arange(12).reshape(3, 4).tolist()
    assert reader.fields["texts"].contents() == METADATA["texts"]
    assert reader.fields["large"].contents() == 1 << 40


def test_the_types_are_those_of_the_published_table() -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    theirs = {kind.name: (kind.value, *GGML_QUANT_SIZES[kind]) for kind in GGMLQuantizationType}
    ours = {element.name: (element.id, element.block, element.block_bytes) for element in TYPES.values()}
    # The one size in which the published table differs from ggml: a block of Q8_1 has two halves, not two floats.
    theirs["Q8_1"] = ours["Q8_1"] if theirs["Q8_1"] == (9, 32, 40) else theirs["Q8_1"]
    assert {name: ours[name] for name in theirs if name in ours} == {
        name: theirs[name] for name in theirs if name in ours
    }
    assert set(theirs) <= set(ours)


@pytest.mark.parametrize(
    ("metadata", "plans", "reason"),
    [
        ({"n": -1}, [], "u32"),
        ({"n": 1 << 32}, [], "u32"),
        ({"n": np.array([1j])}, [], "element type"),
        ({"general.alignment": 12}, [], "power of two"),
        ({}, [PLANS[0], PLANS[0]], "twice"),
        ({}, [plan("x" * 64, np.zeros(1, np.float32))], "63 bytes"),
        ({}, [plan("x", np.zeros(33, np.uint8), "Q8_0", (33,))], "cannot be stored"),
        ({}, [plan("x", np.zeros(3, np.float32), "F32", (4,))], "announced"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(
    metadata: dict[str, Any], plans: list[TensorPlan], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(BadGGUF, match=reason):
        write(tmp_path / "a.gguf", metadata, plans)


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def file_bytes(pairs: list[bytes], tensors: list[bytes], tail: bytes = b"", version: int = 3) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs + tensors)
    return head.ljust(-(-len(head) // 32) * 32, b"\0") + tail


def tensor(name: bytes, shape: tuple[int, ...] = (8,), type_id: int = 0, offset: int = 0) -> bytes:
    return string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, type_id, offset)


def pair(key: bytes, type_id: int, value: bytes) -> bytes:
    return string(key) + struct.pack("<I", type_id) + value


U32 = struct.pack("<I", 1)
MALFORMED = {
    "empty": (b"", "0 bytes"),
    "magic": (b"GGML" + bytes(60), "begin with"),
    "version": (file_bytes([], [], version=1), "version 1"),
    "big-endian": (file_bytes([], [], version=3 << 24), "version"),
    "too many pairs": (b"GGUF" + struct.pack("<IQQ", 3, 0, 5_000) + bytes(99_999), "at most 4,096"),
    "too many tensors": (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0) + bytes(99_999), "at most 131,072"),
    "pairs that cannot fit": (b"GGUF" + struct.pack("<IQQ", 3, 0, 4_000) + bytes(64), "are left"),
    "empty key": (file_bytes([pair(b"", 4, U32)], []), "key is empty"),
    "duplicate key": (file_bytes([pair(b"k", 4, U32)] * 2, []), "occurs twice"),
    "key not UTF-8": (file_bytes([pair(b"\xff", 4, U32)], []), "UTF-8"),
    "endless key": (file_bytes([struct.pack("<Q", 1 << 62) + bytes(16)], []), "at most 65,535"),
    "unknown value type": (file_bytes([pair(b"k", 13, U32)], []), "unknown value type 13"),
    "boolean of two": (file_bytes([pair(b"k", 7, b"\2")], []), "neither 0 nor 1"),
    "nested array": (file_bytes([pair(b"k", 9, struct.pack("<IQ", 9, 0))], []), "unknown value type 9"),
    "endless array": (file_bytes([pair(b"k", 9, struct.pack("<IQ", 4, 1 << 61))], []), "at most"),
    "array past the end": (file_bytes([pair(b"k", 9, struct.pack("<IQ", 4, 1 << 20))], []), "are left"),
    "strings past the end": (file_bytes([pair(b"k", 9, struct.pack("<IQ", 8, 1) + b"\xff" * 8)], []), "past the end"),
    "string not UTF-8": (file_bytes([pair(b"k", 9, struct.pack("<IQ", 8, 1) + string(b"\xff"))], []), "UTF-8"),
    "alignment of three": (file_bytes([pair(b"general.alignment", 4, struct.pack("<I", 3))], []), "power of two"),
    "alignment as text": (file_bytes([pair(b"general.alignment", 8, string(b"32"))], []), "power of two"),
    "no tensor name": (file_bytes([], [tensor(b"")], bytes(32)), "no name"),
    "long tensor name": (file_bytes([], [tensor(b"x" * 64)], bytes(32)), "at most 63"),
    "five dimensions": (file_bytes([], [tensor(b"x", (1,) * 5)], bytes(32)), "5 dimensions"),
    "a dimension of zero": (file_bytes([], [tensor(b"x", (0,))], bytes(32)), "impossible shape"),
    "overflowing shape": (file_bytes([], [tensor(b"x", (1 << 40, 1 << 40))], bytes(32)), "impossible shape"),
    "unknown tensor type": (file_bytes([], [tensor(b"x", (8,), 99)], bytes(32)), "unknown type 99"),
    "partial block": (file_bytes([], [tensor(b"x", (33,), 8)], bytes(64)), "not a multiple"),
    "offset with a hole": (file_bytes([], [tensor(b"x", (8,), 0, 32)], bytes(99)), "0 was expected"),
    "duplicate tensor": (file_bytes([], [tensor(b"x"), tensor(b"x", offset=32)], bytes(64)), "occurs twice"),
    "tensor past the end": (file_bytes([], [tensor(b"x")], bytes(31)), "ends at byte"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_files_are_refused_by_rule(case: str, tmp_path: Path) -> None:
    data, rule = MALFORMED[case]
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(BadGGUF, match=rule) as caught:
        gguf.read(path)
    assert str(path) in caught.value.message


def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    start = time.monotonic()
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/null"), tmp_path / "missing", Path("nul\0byte")):
        with pytest.raises(BadGGUF):
            gguf.read(path)
    assert time.monotonic() - start < 1


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_only_bad_gguf_escapes_from_damaged_files(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("fuzz", numbered=True) / "a.gguf"
    whole = bytearray(write(path).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place : place + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=9))
    path.write_bytes(
        bytes(whole[: data.draw(st.integers(0, len(whole)))]) if data.draw(st.booleans()) else bytes(whole)
    )
    try:
        file = gguf.read(path)
    except BadGGUF:
        return
    assert all(file.tensor(name).nbytes == info.nbytes for name, info in file.tensors.items())
