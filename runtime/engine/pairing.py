"""A draft model beside a model: whether their tokens are the same, and what it takes of the memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ...convert import gguf
from ...convert.errors import InputError
from ..llama.dry import DryModel
from ..llama.metadata import integer, integers
from ..llama.model import require_model
from ..llama.parts import parts_of
from ..options import LoadOptions
from . import way
from .memory import Demand

UNUSED = 5
"""Type of the tokens that only fill a vocabulary up (llama_token_type)."""

SPECIAL = {
    "bos_token_id": "begin of text",
    "eos_token_id": "end of text",
    "eot_token_id": "end of turn",
    "unknown_token_id": "unknown token",
}
OTHER = "a draft model must have the same tokens: mostly a smaller model of the same family has"


@dataclass(frozen=True, slots=True)
class Pair:
    """The file of a draft model, whether its weights are laid out anew, and how many tokens both models have."""

    file: gguf.GGUF
    repack: bool
    vocabulary: int


@contextmanager
def paired(
    metadata: Mapping[str, gguf.Value], dry: DryModel, options: LoadOptions
) -> Iterator[tuple[Pair | None, Demand | None]]:
    """The draft model of ``options`` and what it demands, beside a model of these metadata; None twice without one.

    Raises:
        InputError: it is no model, has other tokens, or one of the two cannot take tokens back.
        BadGGUF, LoadFailed: a file that llama.cpp would refuse.
    """
    if options.draft is None:
        yield None, None
        return
    if options.speculate == "off":
        raise InputError("a draft model computes ahead, and --speculate off forbids that", hint="drop one of them")
    path = Path(options.draft)
    file = gguf.read(path)
    require_model(file.metadata, path)
    shared = common_tokens(metadata, file.metadata, path.name)
    parts = parts_of(file)
    with DryModel.of(parts) as draft:
        if not draft.generates:
            raise InputError(f"{path} does not continue text, so it cannot draft")
        _refuse_states(dry, "the model")
        _refuse_states(draft, f"the draft model {path.name}")
        weights = sum(info.nbytes for part in parts for info in part.tensors.values())
        repack = way.choose(path, replace(options, draft=None)).repack
        yield Pair(file, repack, shared), Demand(draft, weights, options, drafts=True)


def common_tokens(model: Mapping[str, gguf.Value], draft: Mapping[str, gguf.Value], name: str) -> int:
    """How many tokens two vocabularies have, which are one but for unused tokens at an end. Raises :class:`InputError`
    with what differs. ``name`` is the draft model's."""
    ours, theirs = _tokens(model), _tokens(draft)
    shared = min(len(ours), len(theirs))
    for token, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            raise InputError(f"{name} has other tokens: {token} is {other!r} there and {one!r} here", hint=OTHER)
    if _used_beyond(model, shared) or _used_beyond(draft, shared):
        raise InputError(f"{name} has other tokens: {len(theirs):,}, and the model has {len(ours):,}", hint=OTHER)
    for key, said in SPECIAL.items():
        here, there = (integer(metadata, f"tokenizer.ggml.{key}", -1) for metadata in (model, draft))
        if here != there and min(here, there) >= 0:
            raise InputError(f"{name} has other tokens: the {said} is {there} there and {here} here", hint=OTHER)
    return shared


def _tokens(metadata: Mapping[str, gguf.Value]) -> list[str]:
    tokens = metadata.get("tokenizer.ggml.tokens")
    return tokens if isinstance(tokens, list) else []


def _used_beyond(metadata: Mapping[str, gguf.Value], count: int) -> bool:
    kinds = integers(metadata, "tokenizer.ggml.token_type")[count:]
    return len(kinds) < len(_tokens(metadata)) - count or any(kind != UNUSED for kind in kinds)


def _refuse_states(dry: DryModel, what: str) -> None:
    if not dry.can_share_prefix:
        raise InputError(
            f"{what} keeps a recurrent state, which cannot take tokens back: nothing can be drafted",
            hint="leave --draft out",
        )
