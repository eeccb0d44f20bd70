"""A checkpoint seen as what it will become. Each property is worked out when it is first asked for, from headers and
configs only, and raises what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from . import (
    attach,
    families,
    fp8,
    generation,
    gguf,
    heads,
    judge,
    metadata,
    plan,
    prequantized,
    segments,
    sentence,
    tokenizer,
    vision,
)
from . import config as configs
from .attach import Attached
from .checkpoint import read_config, read_generation, read_tensors
from .config import Config
from .errors import UnsupportedModel
from .families import Family
from .gguf import Value
from .plan import Matched, RowsPlan
from .projection import Projection
from .tensor import Arrive, Tensor
from .vocabulary import Vocabulary


class Source:
    """One folder, to be converted with one ``dtype`` of :data:`plan.DTYPES`. ``clip``: see :class:`plan.Overflow`."""

    def __init__(self, folder: Path, dtype: str, arrive: Arrive | None = None, *, clip: bool = False) -> None:
        """``arrive``: where of the weights only the headers are here yet, see :data:`.tensor.Arrive`."""
        self.folder = folder
        self.overflow = plan.Overflow(clip)
        self._dtype = dtype
        self.arrive = arrive

    @cached_property
    def raw(self) -> Mapping[str, Any]:
        """config.json as it is."""
        return read_config(self.folder)

    @cached_property
    def generation(self) -> Mapping[str, Any]:
        """generation_config.json, or empty."""
        return read_generation(self.folder)

    @cached_property
    def family(self) -> Family:
        prequantized.fp8_block(self.raw)
        return families.find(self.raw)

    @cached_property
    def config(self) -> Config:
        config = configs.normalise(self.raw, self.family.defaults, self.family.derived)
        if configs.contradicts(self.raw, "tie_word_embeddings") and self.family.head:
            return replace(config, tied=not any(name.endswith(self.family.head) for name in self.tensors))
        return config

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        block = prequantized.fp8_block(self.raw)
        tensors = {name: replace(one, arrive=self.arrive) for name, one in read_tensors(self.folder).items()}
        return tensors if block is None else fp8.with_scales(tensors, block)

    @cached_property
    def matched(self) -> Matched:
        family, config = self.family, self.config
        return plan.match(self.tensors, family, config, self.attached)

    @cached_property
    def attached(self) -> Attached | None:
        """What stands on top of the model, and is stored as metadata."""
        name, family, config = families.class_name(self.raw), self.family, self.config
        head = heads.find(name)
        if head is not None:
            spelled = {plan.spelled(name, family): tensor for name, tensor in self.tensors.items()}
            return attach.attach(head, spelled, config)
        if judge.is_judge(self.folder, name):
            known = {family.embedding, family.head}
            named = {plan.canonical_name(name, known, family): tensor for name, tensor in self.tensors.items()}
            return judge.read(self.folder, name, family, config, named)
        return sentence.read(self.folder, config)

    @cached_property
    def dtype(self) -> str:
        """The element type of the file's matrices."""
        return plan.resolve_dtype(self._dtype, self.matched)

    @cached_property
    def plans(self) -> list[RowsPlan]:
        return plan.tensors(self.matched, self.family, self.config, self.dtype, self.overflow)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return tokenizer.read(self.folder, configs.flatten(self.raw), self.config.vocab_size, embed=self.reads)

    def settle(self, trial: Callable[[Vocabulary], Vocabulary] | None) -> None:
        """Have ``trial`` decide what is open about the vocabulary. Raises :class:`UnsupportedModel` where something is,
        and there is no trial."""
        if trial is not None:
            self.vocabulary = trial(self.vocabulary)
            self.__dict__.pop("metadata", None)  # worked out from it, when the first look was taken
        elif self.vocabulary.undecided:
            raise UnsupportedModel(
                "llama.cpp has no pre-tokenizer that is described like this one; only trying them all can tell",
                hint="convert with a proof: ingle convert does",
            )

    @property
    def reads(self) -> bool:
        """Whether it is made to read texts (states, labels, embeddings) rather than to write: from configs alone."""
        named = heads.find(families.class_name(self.raw)) is not None
        return named or not self.family.head or (self.folder / sentence.MODULES).is_file() or self.judges

    @property
    def judges(self) -> bool:
        """Whether it is a language model that tells how well a document answers a query."""
        return judge.is_judge(self.folder, families.class_name(self.raw))

    @cached_property
    def metadata(self) -> dict[str, Value]:
        """All keys of the file, but the weights of a head."""
        arch, config, attached = self.family.arch, self.config, self.attached
        own = self.family.metadata(config) | (attach.native_metadata(attached, config) if attached else {})
        general = metadata.general(self.folder, arch, self.dtype, self.num_parameters, self.generation)
        token_types = self.family.token_types(config)
        return {
            **general,
            **{f"{arch}.{key}": value for key, value in own.items()},
            **(segments.metadata(self.folder) if self.reads else {}),
            **self.vocabulary.metadata,
            **({"tokenizer.ggml.token_type_count": token_types} if token_types else {}),
            **(attach.metadata(attached, config) if attached else {}),
            **sentence.prompts(self.folder),
            **(judge.metadata(self.folder) if self.judges else {}),
            **(generation.metadata(self.raw, self.generation) if arch == "t5" else {}),
        }

    @cached_property
    def projection(self) -> Projection | None:
        """The vision part, if there is one that can be converted."""
        family = vision.find(self.raw)
        if family is None:
            return None
        return Projection(self.folder, self.raw, lambda: self.tensors, family, self._dtype, self.overflow)

    def head_weights(self) -> dict[str, Value]:
        """The weights of a head, as metadata. Reads its tensors."""
        return attach.weights(self.attached) if self.attached else {}

    @property
    def num_parameters(self) -> int:
        return plan.num_parameters(self.plans)

    @property
    def size_bytes(self) -> int:
        """Size of the file, padding aside."""
        tensors = sum(tensor.nbytes for tensor in self.plans)
        return len(gguf.header(self.metadata, self.plans)) + (self.attached.nbytes if self.attached else 0) + tensors
