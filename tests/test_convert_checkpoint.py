"""Reading a checkpoint folder: safetensors headers, indices and configs that lie are refused by name."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingle.convert import checkpoint, safetensors
from ingle.convert.config import normalise
from ingle.convert.errors import BadCheckpoint, IngleError
from ingle.convert.jsonfile import read_object

DEFAULTS = {"tie_word_embeddings": False, "rope_theta": 10_000.0}
CONFIG = {
    "vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 96, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "hidden_act": "silu",
}  # fmt: skip


def entry(start: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def save(path: Path, header: dict[str, Any] | str, data: bytes) -> Path:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_a_sound_file_is_read_lazily(tmp_path: Path) -> None:
    header = {"b": entry(8, 12, [2], "BF16"), "a": entry(0, 8, [2, 1]), "__metadata__": {"format": "pt"}}
    tensors = safetensors.read(save(tmp_path / "m.safetensors", header, np.array([1, 2, 3], np.float32).tobytes()))
    assert tensors["a"].values.tolist() == [[1], [2]]
    assert tensors["b"].values.view(np.float16).nbytes == tensors["b"].nbytes == 4


ONE = {"a": entry(0, 8, [2])}
HOSTILE = {
    "duplicate key": ('{"a":%s,"a":%s}' % ((json.dumps(ONE["a"]),) * 2), 8, "occurs twice"),
    "overlap": ({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, 12, "overlaps"),
    "hole": ({"a": entry(0, 8, [2]), "b": entry(12, 20, [2])}, 20, "hole"),
    "hole at the start": ({"a": entry(4, 12, [2])}, 12, "hole"),
    "bytes after the last": (ONE, 12, "end at byte"),
    "past the end": (ONE, 4, "end at byte"),
    "offsets reversed": ({"a": entry(8, 0, [2])}, 8, "cannot span"),
    "offset of 2^63": ({"a": entry(1 << 63, (1 << 63) + 8, [2])}, 8, "impossible offsets"),
    "negative offset": ({"a": entry(-8, 0, [2])}, 8, "impossible offsets"),
    "three offsets": ({"a": {**ONE["a"], "data_offsets": [0, 4, 8]}}, 8, "impossible offsets"),
    "shape that overflows": ({"a": entry(0, 8, [1 << 40, 1 << 40])}, 8, "impossible shape"),
    "shape of other size": ({"a": entry(0, 8, [3])}, 8, "cannot span"),
    "negative shape": ({"a": entry(0, 8, [-2])}, 8, "impossible shape"),
    "boolean shape": ({"a": entry(0, 4, [True])}, 4, "impossible shape"),
    "shape as text": ({"a": {**ONE["a"], "shape": "2"}}, 8, "impossible shape"),
    "nine dimensions": ({"a": entry(0, 4, [1] * 9)}, 4, "impossible shape"),
    "unknown dtype": ({"a": entry(0, 8, [2], "F99")}, 8, "unknown dtype"),
    "dtype as list": ({"a": {**ONE["a"], "dtype": ["F32"]}}, 8, "unknown dtype"),
    "unknown field": ({"a": {**ONE["a"], "extra": 1}}, 8, "is not {dtype"),
    "entry as number": ({"a": 5}, 8, "is not {dtype"),
    "metadata of numbers": ({**ONE, "__metadata__": {"n": 1}}, 8, "small object of strings"),
    "metadata too large": ({**ONE, "__metadata__": {"n": "x" * (2 << 20)}}, 8, "small object of strings"),
    "header as list": ("[]", 0, "not a JSON object"),
    "header not JSON": ("{", 0, "sound JSON"),
    "header nested deep": ("[" * 100_000, 0, "sound JSON"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_are_refused_by_rule(case: str, tmp_path: Path) -> None:
    header, num_bytes, rule = HOSTILE[case]
    with pytest.raises(BadCheckpoint, match=rule):
        safetensors.read(save(tmp_path / "m.safetensors", header, bytes(num_bytes)))


def test_a_header_longer_than_the_file_is_not_allocated(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for length in (17, 1 << 40, (1 << 64) - 1):
        path.write_bytes(struct.pack("<Q", length) + bytes(16))
        with pytest.raises(BadCheckpoint, match="claims"):
            safetensors.read(path)


def test_a_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(BadCheckpoint, match="regular file"):
        checkpoint.read_tensors(tmp_path)
    with pytest.raises(BadCheckpoint, match="regular file"):
        checkpoint.read_config(tmp_path)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_only_bad_checkpoint_escapes_from_damage(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("fuzz", numbered=True) / "m.safetensors"
    whole = bytearray(save(path, {"b": entry(8, 12, [2], "BF16"), "a": entry(0, 8, [2, 1])}, bytes(12)).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=5))
    path.write_bytes(bytes(whole))
    try:
        tensors = safetensors.read(path)
    except BadCheckpoint:
        return
    assert all(tensor.values.nbytes == tensor.nbytes for tensor in tensors.values())


def sharded(folder: Path, weight_map: Any) -> Path:
    save(folder / "one.safetensors", {"a": entry(0, 8, [2])}, bytes(8))
    save(folder / "two.safetensors", {"b": entry(0, 8, [2])}, bytes(8))
    (folder / checkpoint.SAFETENSORS.index).write_text(json.dumps({"weight_map": weight_map}))
    return folder


def test_shards_are_read_through_the_index(tmp_path: Path) -> None:
    tensors = checkpoint.read_tensors(sharded(tmp_path, {"b": "two.safetensors", "a": "one.safetensors"}))
    assert [(name, tensor.file.name) for name, tensor in tensors.items()] == [
        ("b", "two.safetensors"),
        ("a", "one.safetensors"),
    ]


@pytest.mark.parametrize(
    ("weight_map", "rule"),
    [
        ({"a": "../one.safetensors"}, "not a file of this folder"),
        ({"a": "/etc/passwd"}, "not a file of this folder"),
        ({"a": "sub/one.safetensors"}, "not a file of this folder"),
        ({"a": "one.bin"}, "not a file of this folder"),
        ({"a": 5}, "not a file of this folder"),
        ({"a": "missing.safetensors"}, "cannot open"),
        ({"a": "two.safetensors"}, "disagree: tensor 'a' is not in that file"),
        ({"a": "one.safetensors", "c": "two.safetensors"}, "disagree: tensor 'b' is not in the index"),
        ({}, "no weight_map"),
        ([], "no weight_map"),
        (None, "no weight_map"),
    ],
)
def test_hostile_indices_are_refused(weight_map: Any, rule: str, tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match=rule):
        checkpoint.read_tensors(sharded(tmp_path, weight_map))


@pytest.mark.parametrize("name", ["tf_model.h5", "flax_model.msgpack"])
def test_weights_of_other_frameworks_are_refused_with_the_remedy(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(BadCheckpoint, match=f"its {name} cannot be read") as caught:
        checkpoint.read_tensors(tmp_path)
    assert "save_pretrained" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (b"{", "valid JSON"),
        (b"[]", "not an object"),
        (b"\xff\xfe{}", "valid JSON"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": [Infinity]}', "Infinity"),
        (b'{"a": 1e999}', "not finite"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "nested deeper"),
        (b'{"a":' * 100_000, "valid JSON"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "valid JSON"),
    ],
)
def test_hostile_json_is_refused(text: bytes, rule: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(BadCheckpoint, match=rule):
        checkpoint.read_config(tmp_path)


def test_a_large_config_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(11 << 20)
    with pytest.raises(BadCheckpoint, match="at most"):
        read_object(path)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"hidden_size": None}, "no hidden_size"),
        ({"hidden_size": "64"}, "hidden_size must be a whole number"),
        ({"hidden_size": 0}, "hidden_size must be"),
        ({"hidden_size": 1 << 40}, "hidden_size must be"),
        ({"hidden_size": 64.0}, "hidden_size must be"),
        ({"num_hidden_layers": 513}, "num_hidden_layers must be"),
        ({"num_attention_heads": True}, "num_attention_heads must be"),
        ({"num_key_value_heads": 3}, "cannot share"),
        ({"vocab_size": -1}, "vocab_size must be"),
        ({"max_position_embeddings": 1 << 30}, "max_position_embeddings must be"),
        ({"rope_scaling": [1]}, "must be an object"),
        ({"rope_theta": "big"}, "rope_theta must be"),
        ({"rope_theta": 0}, "rope_theta must be"),
        ({"rope_parameters": {"rope_theta": True}}, "rope_theta must be"),
    ],
)
def test_config_values_out_of_range_are_refused(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(BadCheckpoint, match=rule):
        normalise({**CONFIG, **change}, DEFAULTS)


SCALING = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
SPELLINGS = [
    {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **SCALING}},
    {"rope_theta": 5e5, "rope_scaling": {"type": "llama3", **SCALING}},
    {"rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", **SCALING}},
    {"rope_parameters": {"full_attention": {"rope_theta": 5e5, "rope_type": "llama3", **SCALING}}},
    {"text_config": {"rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", **SCALING}}, "rope_theta": 1.0},
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_old_and_new_spellings_of_rope_are_one(spelling: dict[str, Any]) -> None:
    rope = normalise({**CONFIG, **spelling}, DEFAULTS).rope
    assert (rope.theta, rope.type, dict(rope.scaling)) == (5e5, "llama3", SCALING)


@pytest.mark.parametrize(
    "spelling",
    [
        {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        {"rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        }},
    ],
)  # fmt: skip
def test_two_kinds_of_attention_have_two_ropes(spelling: dict[str, Any]) -> None:
    config = normalise({**CONFIG, **spelling}, DEFAULTS)
    assert config.rope_local is not None
    assert (config.rope.theta, config.rope.type, config.rope.scaling["factor"]) == (1e6, "linear", 8.0)
    assert (config.rope_local.theta, config.rope_local.type) == (1e4, "default")


def test_defaults_of_the_class_fill_what_is_missing() -> None:
    given = {key: value for key, value in CONFIG.items() if key != "hidden_size"}
    config = normalise({**given, "tie_word_embeddings": True}, {**DEFAULTS, "hidden_size": 128})
    assert (config.hidden_size, config.head_dim, config.tied) == (128, 32, True)


def test_null_is_an_answer_and_not_a_gap() -> None:
    config = normalise({**CONFIG, "sliding_window": None, "num_key_value_heads": None}, {"sliding_window": 4096})
    assert config.get("sliding_window") is None
    assert config.num_kv_heads == config.num_heads


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(
    st.sampled_from([*CONFIG, "rope_theta", "rope_scaling", "rope_parameters", "head_dim", "text_config"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
            st.sampled_from(["rope_theta", "full_attention", "sliding_attention", "factor", "type"]), inner
        ),
    ),
))  # fmt: skip
def test_only_our_errors_escape_from_any_config(changes: dict[str, Any]) -> None:
    try:
        config = normalise({**CONFIG, **changes}, DEFAULTS)
    except IngleError:
        return
    assert config.num_heads * config.head_dim > 0
