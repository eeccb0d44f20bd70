"""``pytorch_model.bin``: the same tensors as torch's own, from each format, and the same GGUF as from safetensors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torchfile
from altered import CHECKPOINTS, copy
from hypothesis import given, settings
from hypothesis import strategies as st
from ingle.convert import checkpoint, convert, safetensors, torchbin
from ingle.convert.errors import BadCheckpoint
from torchfile import name, number, state, storage, text, view

DATA = Path(__file__).parent / "data" / "torch"
FLOATS = torchfile.CLASSES["F32"]


@pytest.mark.parametrize(("file", "missing"), [("archive", 0), ("archive4", 0), ("legacy", 4)])
def test_what_torch_saved_is_read_bit_for_bit(file: str, missing: int) -> None:
    expected = safetensors.read(DATA / "expected.safetensors")
    tensors = torchbin.read(DATA / f"{file}.bin")
    assert len(tensors) == len(expected) - missing
    for key, tensor in tensors.items():
        assert (tensor.dtype, tensor.shape) == (expected[key].dtype, expected[key].shape)
        assert tensor.values.tobytes() == expected[key].values.tobytes()


def test_tensors_that_share_a_storage_share_their_bytes() -> None:
    tensors = torchbin.read(DATA / "archive.bin")
    assert tensors["base"].offset == tensors["same"].offset == tensors["transposed"].offset
    assert tensors["transposed"].values.strides == tensors["base"].values.strides[::-1]


def test_a_program_is_no_checkpoint() -> None:
    with pytest.raises(BadCheckpoint, match="compressed"):
        torchbin.read(DATA / "script.bin")


def pickled(folder: Path, *, old: bool, shards: int) -> Path:
    """The folder with its weights in pytorch_model.bin instead, or in several with an index."""
    tensors = checkpoint.read_tensors(folder)
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    if shards == 1:
        torchfile.save(folder / "pytorch_model.bin", tensors, old=old)
        return folder
    weight_map = {}
    for shard in range(shards):
        part = dict(list(tensors.items())[shard::shards])
        place = f"pytorch_model-{shard + 1:05}-of-{shards:05}.bin"
        torchfile.save(folder / place, part, old=old)
        weight_map |= dict.fromkeys(part, place)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.mark.parametrize(("family", "old", "shards"), [("llama", False, 1), ("mistral", True, 1), ("gpt2", False, 3)])
def test_the_gguf_is_the_one_that_safetensors_gives(family: str, old: bool, shards: int, tmp_path: Path) -> None:
    expected = convert(CHECKPOINTS / family, tmp_path / "expected.gguf").path.read_bytes()
    folder = pickled(copy(family, tmp_path), old=old, shards=shards)
    assert convert(folder, tmp_path / "m.gguf").path.read_bytes() == expected


def test_safetensors_are_preferred(tmp_path: Path) -> None:
    folder = copy("llama", tmp_path)
    (folder / "pytorch_model.bin").write_bytes(b"not even looked at")
    assert {tensor.file.suffix for tensor in checkpoint.read_tensors(folder).values()} == {".safetensors"}


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = pickled(copy("gpt2", tmp_path), old=False, shards=2)
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(BadCheckpoint, match=r"cannot open .*00002-of-00002"):
        checkpoint.read_tensors(folder)


EIGHT = storage("0", FLOATS, 8)
WRONG: dict[str, tuple[bytes, str]] = {
    "beyond its storage": (view(EIGHT, (3, 3)), "not described"),
    "offset beyond": (view(EIGHT, (2,), offset=7), "not described"),
    "stride beyond": (view(EIGHT, (2, 2), (7, 2)), "not described"),
    "larger than its storage by a stride of 0": (view(EIGHT, (1 << 40, 2), (0, 1)), "not described"),
    "negative stride": (view(EIGHT, (2, 2), (-2, 1)), "not described"),
    "negative offset": (view(EIGHT, (2,), offset=-1), "not described"),
    "size of 2^62": (view(EIGHT, (1 << 62,)), "not described"),
    "nine dimensions": (view(EIGHT, (1,) * 9), "not described"),
    "strides of another rank": (view(EIGHT, (2, 2), (1,)), "not described"),
    "a shape of texts": (view(EIGHT, ()).replace(b"\x89", text("x"), 1).replace(b"(t(t", b"(" + text("x") + b"t(t", 1),
                         "not described"),
    "no such storage": (view(storage("9", FLOATS, 8), (2,)), "storage of tensor 'w' is missing"),
    "a storage of other size": (view(storage("0", FLOATS, 7), (2,)), "has not 28 bytes"),
    "a storage of another type": (view(storage("0", torchfile.CLASSES["F64"], 8), (2,)), "has not 64 bytes"),
    "a negative storage": (view(storage("0", FLOATS, -1), ()), "not described"),
    "a type for a storage": (view(storage("0", "torch.uint16", 8), (2,)), "not described"),
    "a storage for a tensor": (EIGHT, "is a Storage, not a tensor"),
    "a number for a tensor": (number(3), "is a int, not a tensor"),
    "a dict for a tensor": (b"}", "is a dict, not a tensor"),
    "a storage class that is called": (name(FLOATS) + b"(" + number(1 << 40) + b"tR", "calls something"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_tensors_that_lie_are_refused_by_rule(case: str, tmp_path: Path) -> None:
    value, rule = WRONG[case]
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(torchfile.archive(state({"w": value}), {"0": bytes(32)}))
    with pytest.raises(BadCheckpoint, match=rule):
        torchbin.read(path)


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        (b"root/byteorder", b"root/byteordeR", "cannot be at"),
        (b"little", b"big   ", "little-endian"),
        (b"PK\x05\x06", b"PK\x05\x07", "end as an archive"),
        (b"PK\x01\x02", b"PK\x01\x03", "directory is cut off"),
        (b"PK\x03\x04\x14", b"PK\x03\x05\x14", "not described as|cut off|does not begin|plain state dict"),
        (b"root/data/0", b"root/data/1", "cannot be at"),
    ],
)
def test_damaged_archives_are_refused(before: bytes, after: bytes, rule: str, tmp_path: Path) -> None:
    whole = torchfile.archive(state({"w": view(EIGHT, (2, 4))}), {"0": bytes(32)})
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(whole.replace(before, after, 1))
    with pytest.raises(BadCheckpoint, match=rule):
        torchbin.read(path)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), old=st.booleans())
def test_only_bad_checkpoint_escapes_from_damage(
    data: st.DataObject, old: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = bytearray((DATA / ("legacy.bin" if old else "archive.bin")).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=5))
    path = tmp_path_factory.mktemp("fuzz", numbered=True) / "pytorch_model.bin"
    path.write_bytes(bytes(whole))
    try:
        tensors = torchbin.read(path)
    except BadCheckpoint:
        return
    assert all(tensor.values.nbytes == tensor.nbytes for tensor in tensors.values())
