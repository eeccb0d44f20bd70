"""The second half of an adapter's proof: llama.cpp loads it beside its base, in a child process.

Of a base that is a checkpoint the child makes an outline: the header that the conversion would write, and behind it a
hole instead of weights. llama.cpp then compares the adapter with the names and shapes that the base will have.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..convert import gguf
from ..convert.errors import IngleError, VerificationFailed
from ..convert.ggml import TYPES
from ..convert.gguf import TensorPlan
from ..convert.source import Source
from . import confined

SERVE = f"{__name__}:serve"
# The smallest types for which llama.cpp accepts a weight: the hole is read once.
SMALLEST = ("IQ1_S", "Q4_0")


def prove_loads(adapter: Path, base: Path) -> None:
    """Let llama.cpp load ``adapter``, whatever its name, beside ``base``, a checkpoint folder or a GGUF file.

    Raises:
        VerificationFailed: it refuses, or dies of it. BadCheckpoint, BadGGUF: the base cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix=".outline-", dir=adapter.parent) as room:
        confined.run(SERVE, adapter, str(base), room)


def serve() -> None:
    """The child: its arguments are the adapter, the base, and a folder to work in."""
    adapter, base, room = map(Path, sys.argv[1:4])
    confined.report(lambda _: _load(adapter, base if base.is_file() else outline(base, room / "base.gguf")))


def _load(adapter: Path, base: Path) -> dict[str, Any]:
    """Nothing is found but that it loads."""
    from .llama.adapter import NativeAdapter
    from .llama.model import NativeModel

    model = NativeModel(base, repack=False)
    try:
        NativeAdapter(model, adapter).close()
    except IngleError as error:
        raise VerificationFailed(error.message, hint=error.hint) from error
    finally:
        model.close()
    return {}


def outline(checkpoint: Path, path: Path) -> Path:
    """Write the header of ``checkpoint``'s conversion to ``path``, and a hole of the tensors' size."""
    source = Source(checkpoint, "auto")
    plans = [_small(plan) for plan in source.plans]
    header = gguf.header(source.metadata, plans)
    path.write_bytes(header)
    os.truncate(path, len(header) + sum(gguf.padded(plan.nbytes) for plan in plans))
    return path


def _small(plan: TensorPlan) -> TensorPlan:
    fitting = [TYPES[name] for name in SMALLEST if plan.shape[-1] % TYPES[name].block == 0]
    return replace(plan, type=fitting[0]) if fitting and len(plan.shape) > 1 else plan
