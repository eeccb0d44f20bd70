"""Which type each tensor of a model would get in each quantization, decided by llama.cpp from a header alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..convert import child as child_process
from ..convert.errors import BadGGUF, EngineCrashed
from ..convert.ggml import GGMLType
from . import native
from .plan import planned_types
from .types import TYPES, Type

LIMIT_S = 120.0


def mixtures(source: Path, kinds: Iterable[Type] = TYPES.values()) -> dict[str, Mapping[str, GGMLType]]:
    """By the type's name: tensor name → its type. ``source`` is not quantized; a header over a hole is enough.

    Without an importance matrix; with one a few tensors of some types get more bits.

    Raises:
        BadGGUF: llama.cpp refuses ``source``. EngineCrashed: the child died.
    """
    asked = list(kinds)
    try:
        child = subprocess.run(
            child_process.command(f"{__name__}:serve", str(source), *(str(kind.native_id) for kind in asked)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=child_process.environment(),
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineCrashed(f"llama.cpp's quantizer planned {source} for more than {LIMIT_S:.0f} s") from error
    if child.returncode != 0:
        raise EngineCrashed(f"llama.cpp's quantizer {child_process.manner_of_death(child.returncode)} on {source}")
    replies = [native.Reply(**reply) for reply in json.loads(child.stdout)]
    if refused := next((reply for reply in replies if reply.code != 0), None):
        raise BadGGUF(f"llama.cpp refused to quantize {source}: {refused.errors.strip() or 'no reason given'}")
    return {kind.name: planned_types(reply.log) for kind, reply in zip(asked, replies, strict=True)}


def serve() -> None:
    """The child: its arguments are the file and the numbers of the types."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever native code prints is a complaint, not the answer
    source, *numbers = sys.argv[1:]
    jobs = [native.Job(source, "", int(number), threads=1, dry_run=True) for number in numbers]
    json.dump([native.answered(job) for job in jobs], answer)
    answer.flush()
    os._exit(0)
