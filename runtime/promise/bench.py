"""What choosing types stands on: the model in pieces, texts, importance, and what each type of each weight loses."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from ...convert import gguf
from ...convert.errors import InputError
from ...convert.ggml import GGMLType
from ...convert.progress import Progress
from ...quantize import imatrix as importance
from ...quantize.choices import Choices
from ...quantize.imatrix import Imatrix, ImportanceMatrix
from ...quantize.plan import plan, require_unquantized
from ...quantize.shards import Shards, Weight, file_sha256, shards
from ..llama.metadata import integer
from ..llama.model import NativeModel
from ..machine import thread_count
from ..measure.activations import collect_from
from ..measure.wish import loaded
from ..store import places
from . import losses, material, speed
from .losses import Losses
from .material import Material
from .promise import Promise
from .search import Space
from .trials import Reading, Trials

SEARCH_SECONDS = 240.0
EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"


@dataclass(frozen=True, slots=True)
class Wish:
    """What to make smaller, under which promise. on: a text, or what the model writes itself; imatrix: where None, it
    is collected on a part of that text. seconds: about how long types may be tried."""

    source: Path
    promise: Promise
    on: Path | None = None
    imatrix: Imatrix | None = None
    threads: int | None = None
    seconds: float = SEARCH_SECONDS


@dataclass(frozen=True, slots=True)
class Bench:
    """choose and judge try mixtures on texts that share no token. material: those texts; matrix: the importance."""

    wish: Wish
    pieces: Shards
    space: Space
    choose: Trials
    judge: Trials
    material: Material
    matrix: Imatrix

    @property
    def source(self) -> gguf.GGUF:
        return self.pieces.source


def prepared(wish: Wish, stack: ExitStack, progress: Progress) -> Bench:
    """Load, read, collect and try what was not done before.

    Raises:
        InputError: the source cannot be quantized, or the text is of no use. BadGGUF, LoadFailed: it cannot be loaded.
    """
    source = gguf.read(wish.source)
    names = quantizable(source)
    home = places.home() / "tensors"
    places.create_private(home)
    threads = wish.threads or thread_count()
    pool = stack.enter_context(ThreadPoolExecutor(threads))
    with ExitStack() as loading:
        model = loaded(wish.source, loading)
        own = home / f"{file_sha256(wish.source, home)[:32]}.own"
        texts = material.read(wish.on, model, threads, own, progress)
        matrix = wish.imatrix or _collected(model, texts, own, threads, progress)
        vocab_size = model.vocab.size
    pieces = shards(home, source, names, matrix.matrix, pool)
    choose, judge = (
        Trials(pieces, Reading.of(part, vocab_size), pieces.folder, threads, pool)
        for part in (texts.choose, texts.judge)
    )
    errors = losses.errors(pieces, progress)
    factors = losses.sensitivities(pieces, choose, errors, wish.seconds / 2, progress)
    space = Space(pieces, Losses(errors, factors))
    if wish.promise.goal == "cpu-fast":
        space = replace(space, seconds=_seconds(pieces, errors, threads))
    return Bench(wish, pieces, space, choose, judge, texts, matrix)


def quantizable(source: gguf.GGUF) -> list[str]:
    """The weights that llama.cpp would quantize, but for those whose rows no type of blocks divides.

    Raises:
        InputError: there is none, or what :func:`plan` raises.
    """
    require_unquantized(source, hint="a promise is kept against the source: it needs a 16- or 32-bit file")
    planned = plan(source.path, "Q8_0", choices=Choices())
    names = [
        name
        for name, element in planned.tensors.items()
        if element is not source.tensors[name].type and source.tensors[name].shape[-1] % 32 == 0
    ]
    if not names:
        raise InputError(f"{source.path} has no weights that can be quantized")
    return names


def _collected(model: NativeModel, texts: Material, own: Path, threads: int, progress: Progress) -> Imatrix:
    """The importance of all weights, the output's too, on the part of the texts that is meant for it."""
    key = hashlib.sha256(f"{own.name} {texts.sha256} head".encode()).hexdigest()[:32]
    path = places.home() / "imatrix" / f"{key}.gguf"
    if not path.exists():
        entries = collect_from(model, texts.importance, threads, progress, head=True)
        size = max(len(one.tokens) for one in texts.importance)
        places.create_private(path.parent)
        importance.write(path, ImportanceMatrix(entries, (texts.on,), size, texts.sha256))
    return Imatrix.load(path)


def _seconds(pieces: Shards, errors: Mapping[str, Mapping[GGMLType, float]], threads: int) -> speed.Seconds:
    elements = list(dict.fromkeys(element for row in errors.values() for element in row))
    rates = speed.seconds_per_weight(elements, threads)
    return speed.Seconds(rates, {name: _met(pieces.source, weight) for name, weight in pieces.weights.items()})


def _met(source: gguf.GGUF, weight: Weight) -> int:
    """Values of a weight that a token is multiplied with: none of an embedding that is only looked up, of experts those
    that are used."""
    if weight.info.name == EMBEDDING and OUTPUT in source.tensors:
        return 0
    architecture = source.metadata.get("general.architecture", "")
    used = integer(source.metadata, f"{architecture}.expert_used_count", 0)
    return weight.values * used // weight.matrices if weight.matrices > 1 and used else weight.values
