"""Floor 1: GGUF in, smaller GGUF out. Transforms files; never runs a model.

from ingle.quantize import quantize
quantize(Path("model-F16.gguf"), Path("model-Q4_K_M.gguf"), "Q4_K_M")
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..convert import gguf
from ..convert.errors import EngineError, IngleError, InputError
from ..convert.files import appearing, require_space
from ..convert.progress import Progress, silent
from . import native
from .choices import Choices, Override, weight_type
from .imatrix import Imatrix
from .plan import Fallback, Plan, plan
from .types import TYPES, Type

PROBE_BYTES = 1 << 20
MOST_THREADS = 512


@dataclass(frozen=True, slots=True)
class Quantized:
    """A finished quantization. ``bits_per_weight`` counts the whole file; ``fallbacks`` got another type than asked,
    ``unweighted`` had no importance in the matrix that was given."""

    path: Path
    type: str
    source_bytes: int
    size_bytes: int
    bits_per_weight: float
    fallbacks: tuple[Fallback, ...]
    unweighted: tuple[str, ...] = ()

    @classmethod
    def of(cls, plan: Plan, out: Path) -> Quantized:
        """``plan``, carried out at ``out``."""
        return cls(
            path=out,
            type=plan.type.name,
            source_bytes=plan.source.size_bytes,
            size_bytes=plan.size_bytes,
            bits_per_weight=plan.bits_per_weight,
            fallbacks=plan.fallbacks,
            unweighted=plan.unweighted,
        )


def quantize(
    source: Path,
    out: Path,
    type: str,  # noqa: A002  (the field's word for it)
    *,
    threads: int | None = None,
    requantize: bool = False,
    choices: Choices | None = None,
    progress: Progress = silent,
) -> Quantized:
    """Write ``source`` quantized to ``type`` at ``out``: the whole file or none.

    Raises: what :func:`plan` and :func:`execute` raise.
    """
    return execute(plan(source, type, requantize=requantize, choices=choices), out, threads=threads, progress=progress)


def execute(plan: Plan, out: Path, *, threads: int | None = None, progress: Progress = silent) -> Quantized:
    """Do what was planned. ``threads`` None uses every CPU this process may use.

    Raises:
        InputError: ``out`` is the source, or a folder; ``threads`` is out of range.
        DiskFull: not enough space. BadGGUF: llama.cpp refused the source.
        EngineCrashed: its process died. EngineError: what it wrote is not what it planned.
    """
    require_other_file(plan.source.path, out)
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise InputError(f"threads is {threads}; it must be 1 to {MOST_THREADS}", param="threads")
    require_space(out.parent, plan.size_bytes)
    with appearing(out) as partial:
        _write(plan, partial, threads or 0, progress)
        _require_as_planned(plan, partial)
    return Quantized.of(plan, out)


def require_other_file(source: Path, out: Path) -> None:
    """Raises :class:`InputError` when ``out`` is ``source``, or a folder."""
    if out.is_dir():
        raise InputError(f"{out} is a folder", hint="name the file to write")
    if out.exists() and out.samefile(source):
        raise InputError(f"{out} is the source itself ({source})", hint="write to another file")


def _write(plan: Plan, partial: Path, threads: int, progress: Progress) -> None:
    job = plan.job(str(partial), threads)
    try:
        native.run(job, lambda: progress("quantize", partial.stat().st_size, plan.size_bytes))
    except IngleError:
        _probe_space(partial)  # llama.cpp says only that writing failed, not why
        raise
    progress("quantize", plan.size_bytes, plan.size_bytes)


def _probe_space(partial: Path) -> None:
    """Raise the ``OSError`` that a full disk gives to whoever writes on."""
    with partial.open("ab") as file:
        file.write(bytes(PROBE_BYTES))


def _require_as_planned(plan: Plan, partial: Path) -> None:
    written = gguf.read(partial)
    types = {name: info.type for name, info in written.tensors.items()}
    if written.size_bytes != plan.size_bytes or types != plan.tensors:
        raise EngineError(
            f"llama.cpp wrote {written.size_bytes:,} bytes for {plan.source.path} as {plan.type.name}, other than the "
            f"{plan.size_bytes:,} it had planned; the file was discarded"
        )


__all__ = [
    "TYPES",
    "Choices",
    "Fallback",
    "Imatrix",
    "Override",
    "Plan",
    "Quantized",
    "Type",
    "execute",
    "plan",
    "quantize",
    "require_other_file",
    "weight_type",
]
