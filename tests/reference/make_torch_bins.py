"""Write tests/data/torch/: the same odd tensors as ``torch.save`` writes them in three ways, and as safetensors;
and what the 256 bytes of each 8-bit float stand for.

Needs torch, and is run by hand: ``python tests/reference/make_torch_bins.py``. The tests only read what it wrote.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file

FOLDER = Path(__file__).parent.parent / "data" / "torch"
CLASSIC = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip
FLOAT8 = {"E4M3": torch.float8_e4m3fn, "E5M2": torch.float8_e5m2, "E8M0": torch.float8_e8m0fnu}
NEWER = (torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.uint32)


def tensors() -> OrderedDict[str, torch.Tensor]:
    """One of each element type, and every way in which a tensor can be a view of its storage."""
    torch.manual_seed(5)
    state = OrderedDict((str(dtype).removeprefix("torch."), (torch.randn(3, 5) * 3).to(dtype)) for dtype in CLASSIC)
    base = torch.randn(6, 4)
    state |= {
        "base": base,
        "same": base,
        "transposed": base.t(),
        "sliced": base[1:5, 1:3],
        "strided": base[::2, ::2],
        "permuted": torch.randn(2, 3, 4).permute(2, 0, 1),
        "scalar": torch.tensor(2.5),
        "vector": torch.randn(7)[3:],
        "empty": torch.empty(0, 4),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
    }
    return state


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    state = tensors()
    state._metadata = OrderedDict({"": {"version": 1}})
    newer = OrderedDict((str(dtype).removeprefix("torch."), torch.arange(6).to(dtype)) for dtype in NEWER)
    torch.save(state, FOLDER / "legacy.bin", _use_new_zipfile_serialization=False)
    torch.save(state | newer, FOLDER / "archive.bin")
    torch.save(state | newer, FOLDER / "archive4.bin", pickle_protocol=4)
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), FOLDER / "script.bin")
    plain = {name: tensor.detach().clone().contiguous() for name, tensor in (state | newer).items()}
    save_file(plain, FOLDER / "expected.safetensors")
    codes = torch.arange(256, dtype=torch.uint8)
    meanings = {f"F8_{name}": codes.view(kind).float() for name, kind in FLOAT8.items()}
    save_file(meanings, FOLDER / "float8.safetensors")


if __name__ == "__main__":
    main()
