"""A model that reads: texts in, states of their tokens out, on which heads and tasks stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...convert import gguf
from ...convert.errors import UnsupportedModel
from ...convert.progress import Progress, silent
from ..bert import native, weights
from ..bert.layers import Layers
from ..llama.metadata import attention_heads, integer
from ..llama.rows import rows
from ..llama.states import StatesContext, most_texts
from ..machine import available_memory_bytes
from . import classification, embedding, packing
from .classification import Classification
from .head import Array, Head
from .judging import Judge
from .loaded import Loaded
from .readers import LayerReaders, Readers, Step
from .text import LOWER_CASE, Encoded, Length, Part, Text, TextTokenizer

SMALLEST_CONTEXT = 64
LONGEST = "ingle.max_sequence_length"
EMBEDDING, SEGMENTS = "token_embd.weight", "token_types.weight"


class Encoder(Loaded[StatesContext]):
    """A loaded encoder, or a decoder with a head that is no language head. Safe to use from several threads.

        with Encoder.load("org/name") as encoder:
            print(encoder.classify(["What a lovely day."])[0].label)

    Raises:
        BadGGUF, LoadFailed: the file cannot be loaded.
    """

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        super().__init__(path, threads)
        self._readers: Readers | LayerReaders | None = None
        self._file = gguf.read(path)
        self.way = native.quick_way() if weights.fits(self._file) else None
        """How the compiled layers compute, where they read in llama.cpp's place."""
        self._flash = not self.model.architecture.startswith("t5") and not _is_exact(self._file)
        self._lowers = self.metadata.get(LOWER_CASE) is True
        self.longest_text = min(self.model.context_trained, integer(self.metadata, LONGEST, self.model.context_trained))
        """Most tokens of a text, those that the tokenizer adds included."""
        try:
            self.head = Head.of(self.metadata, lambda: rows(self._file, EMBEDDING))
            self.text = TextTokenizer(self.metadata, self.model.vocab, self._segments())
        except BaseException:
            self.model.close()
            raise

    @classmethod
    def load(cls, name: str | Path, *, threads: int | None = None, progress: Progress = silent) -> Encoder:
        """Load by name, as :meth:`Model.load` does: fetched, converted and proven first if it is not here yet."""
        from ..store.build import obtain
        from ..store.store import Store

        place = str(name.absolute()) if isinstance(name, Path) else name
        return cls(obtain(place, Store(), progress=progress).path, threads=threads)

    @property
    def metadata(self) -> Mapping[str, gguf.Value]:
        return self.model.metadata

    @cached_property
    def judge(self) -> Judge:
        """What makes prompts of a query and a document, for a language model that judges."""
        return Judge(self.metadata, self.model.vocab)

    def length(self, *, truncate: bool = False, max_length: int | None = None) -> Length:
        """How long a text may be: as long as the model reads, or ``max_length`` where that is less."""
        return Length(min(max_length or self.longest_text, self.longest_text), truncate)

    def tokenize(self, text: Text) -> list[int]:
        """The ids the model sees, special tokens included. Raises :class:`ContextLengthExceeded` for too many."""
        return list(self.encode(text).ids)

    def encode(self, text: Text, length: Length | None = None) -> Encoded:
        """A text, or a pair, as the model reads it; see :meth:`TextTokenizer.encode`."""
        return self.text.encode(self._cased(text), length or self.length())

    def encode_all(self, texts: Iterable[Text], length: Length, progress: Progress = silent) -> list[Encoded]:
        """The same of several, on all cores."""
        return self.text.encode_all([self._cased(text) for text in texts], length, progress)

    def encode_given(
        self, given: Sequence[str | Sequence[Part]], length: Length, progress: Progress = silent
    ) -> list[Encoded]:
        """The same of texts and of lists of token ids, in their order; see :meth:`TextTokenizer.of_tokens`."""
        texts = iter(self.encode_all([one for one in given if isinstance(one, str)], length, progress))
        return [next(texts) if isinstance(one, str) else self.text.of_tokens(one, length) for one in given]

    def states(self, tokens: Sequence[int]) -> Array:
        """The states of the tokens behind the last layer, (tokens, width)."""
        return self.read([Encoded(tuple(tokens), (0,) * len(tokens))])[0]

    def read(
        self,
        texts: Sequence[Encoded],
        then: Callable[[Array], Array] = lambda states: states,
        progress: Progress = silent,
    ) -> list[Array]:
        """What ``then`` makes of the states of each text, in order. Texts of like length are computed together."""
        found: list[Array] = [np.zeros(0, np.float32)] * len(texts)
        lengths, done = [len(text.ids) for text in texts], 0
        each = packing.LAYERS_STEPS if self.way else 1
        for steps in packing.rounds(lengths, most_texts(self.model), self._budget, self.threads, each):
            made = self._made([self._step([texts[index] for index in step]) for step in steps], then, progress)
            for step, results in zip(steps, made, strict=True):
                for index, result in zip(step, results, strict=True):
                    found[index] = result
                done += len(step)
            progress("read", done, len(texts))
        return found

    def outputs(self, text: Text) -> Array:
        """What the head makes of a text, raw: (outputs,), or (tokens, outputs) for heads that look at each token.

        Raises:
            UnsupportedModel: the file has no head.
        """
        if self.head is None:
            raise UnsupportedModel(f"{self.name} has no head")
        return self.read([self.encode(text)], self.head.run)[0]

    def embed(
        self, texts: Sequence[str], *, prompt: str = "", pooling: str | None = None, truncate: bool = False
    ) -> NDArray[np.float32]:
        """One embedding per text, (texts, dimensions); see :func:`.embedding.embed`."""
        return embedding.embed(self, texts, prompt=prompt, pooling=pooling, truncate=truncate).vectors

    def classify(self, texts: Sequence[Text], *, truncate: bool = False) -> list[Classification]:
        """The labels of each text or pair; see :func:`.classification.classify`."""
        return classification.classify(self, texts, truncate=truncate)

    def _cased(self, text: Text) -> Text:
        return text.lower() if self._lowers and isinstance(text, str) else text

    @property
    def _budget(self) -> int:
        """Tokens of a step."""
        if self.way:
            return packing.LAYERS_STEP_TOKENS
        return packing.FLASH_STEP_TOKENS if self._flash else packing.STEP_TOKENS

    def _step(self, texts: Sequence[Encoded]) -> Step:
        return Step([text.ids for text in texts], self._inputs(texts) if any(any(t.segments) for t in texts) else None)

    def _made(self, steps: Sequence[Step], then: Callable[[Array], Array], progress: Progress) -> list[list[Array]]:
        """What ``then`` makes of the states of each text of each step: one is computed by all threads, several by one
        each."""
        with self._turn(progress):
            if len(steps) > 1 or self.way:
                return self._together().read(steps, then)
            (step,) = steps
            states = self._ready(sum(map(len, step.texts))).states(step.texts, step.inputs)
        return [[then(each) for each in states]]

    def _inputs(self, texts: Iterable[Encoded]) -> Array:
        """The embeddings of the tokens, with what makes their segment of segment 0, which llama.cpp adds to all."""
        ids = np.array([token for text in texts for token in text.ids])
        segments = np.array([segment for text in texts for segment in text.segments])
        kinds = rows(self._file, SEGMENTS)
        return np.asarray(rows(self._file, EMBEDDING, ids) + (kinds - kinds[0])[segments], np.float32)

    def _segments(self) -> int:
        """How many segments the model knows."""
        return self._file.tensors[SEGMENTS].shape[0] if SEGMENTS in self._file.tensors else 1

    def _score_bytes(self, tokens: int) -> int:
        """Memory for how each token attends to each other, before and after softmax, which flash attention spares."""
        return 2 * 4 * attention_heads(self.metadata) * tokens**2

    def _together(self) -> Readers | LayerReaders:
        self._require_open()
        if self._readers is None and self.way:
            self._readers = LayerReaders(Layers(self._file, self.way, self._abort), self.threads)
        if self._readers is None:
            self._readers = Readers(self.model, self.threads, self._budget, self._abort, flash=self._flash)
        return self._readers

    def _drop_context(self) -> None:
        super()._drop_context()
        if self._readers is not None and self.closed:
            self._readers.close()
            self._readers = None

    def _ready(self, tokens: int) -> StatesContext:
        """A context for a step of ``tokens``: as small as will do, for its buffers grow with its square."""
        self._require_open()
        if self._context is None or self._context.capacity < tokens:
            self._drop_context()
            capacity = max(SMALLEST_CONTEXT, 1 << (tokens - 1).bit_length())
            capacity = min(capacity, max(tokens, self.longest_text, packing.FLASH_STEP_TOKENS))
            flash = self._flash or self._score_bytes(capacity) > available_memory_bytes() // 2
            self._context = StatesContext(self.model, capacity, self.threads, self._abort, flash=flash)
        return self._context


def _is_exact(file: gguf.GGUF) -> bool:
    """Whether the weights are all f32: rounding in between would then be the largest error there is."""
    return all(info.type.name == "F32" for info in file.tensors.values())
