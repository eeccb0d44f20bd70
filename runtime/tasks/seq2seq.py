"""A model that reads a text and writes another: T5 and its relatives, greedily or by beam search."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...convert.errors import BadRequest, UnsupportedModel
from ...convert.gguf import Value
from ...convert.progress import Progress, silent
from ..llama.metadata import integers
from ..llama.pairs import PairsContext
from . import packing
from .beams import Rules
from .constraints import Constraints
from .loaded import Loaded
from .odds import Odds
from .text import Length, TextTokenizer
from .text_stream import Tell, Teller
from .writers import Answer, Beams, Greedy, Sampled, Writer

KEY = "ingle.generation"
MOST_SLOTS = 64
SOURCE_TOKENS = 512  # of texts that are read together
MOST_BEAMS = 32
MOST_TOKENS = 4096

Heard = Callable[[Sequence[int]], None]
"""What listens to an answer being written: all of its tokens so far."""


@dataclass(frozen=True, slots=True)
class Generation:
    """How an answer is written; the words are those of transformers.

    max_length, min_length: tokens of the answer, the one it starts from included; max_new_tokens and min_new_tokens
    leave that out, and come first. num_beams 1 is greedy, or a draw from what is likely where do_sample says so; seed
    makes that draw come out the same again, whatever else is computed beside it.
    """

    max_length: int = 20
    max_new_tokens: int | None = None
    min_length: int = 0
    min_new_tokens: int | None = None
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    no_repeat_ngram_size: int = 0
    repetition_penalty: float = 1.0
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None
    suppress_tokens: tuple[int, ...] = ()
    num_return_sequences: int = 1
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    seed: int | None = None

    def longest(self) -> int:
        return self.max_length if self.max_new_tokens is None else self.max_new_tokens + 1

    def shortest(self) -> int:
        return self.min_length if self.min_new_tokens is None else self.min_new_tokens + 1

    def check(self) -> None:
        """Raises :class:`BadRequest` for what cannot be done."""
        drawn = self.do_sample and self.num_beams == 1
        limits: dict[str, tuple[float, float, float]] = {
            "max_length": (self.longest(), 2, MOST_TOKENS),
            "min_length": (self.shortest(), 0, self.longest()),
            "num_beams": (self.num_beams, 1, MOST_BEAMS),
            "num_return_sequences": (self.num_return_sequences, 1, MOST_BEAMS if drawn else self.num_beams),
            "no_repeat_ngram_size": (self.no_repeat_ngram_size, 0, MOST_TOKENS),
            "repetition_penalty": (self.repetition_penalty, 1e-3, 1e3),
            "temperature": (self.temperature, 1e-3, 1e3),
            "top_k": (self.top_k, 0, sys.maxsize),
            "top_p": (self.top_p, 1e-6, 1),
            "seed": (self.seed or 0, 0, 2**64 - 1),
        }
        for name, (value, least, most) in limits.items():
            if not least <= value <= most:
                raise BadRequest(f"{name} is {value}, and must be from {least} to {most}", param=name)
        if self.early_stopping not in (True, False, "never"):
            raise BadRequest('early_stopping must be true, false or "never"', param="early_stopping")
        if self.do_sample and not drawn:
            raise BadRequest(f"do_sample with num_beams {self.num_beams}: beams are searched, not drawn",
                             hint="leave one of the two out", param="do_sample")  # fmt: skip

    @property
    def slots(self) -> int:
        """How many answers to a text are written side by side."""
        return max(self.num_beams, self.num_return_sequences)


@dataclass(frozen=True, slots=True)
class Written:
    """An answer. tokens: all, the one it starts from and the end included. score: by which beam search ranks it; None
    for a greedy one. finish: ``stop`` where the model ended it, ``length`` where the most tokens were reached. cut:
    tokens of the text that were left out."""

    text: str
    tokens: tuple[int, ...]
    score: float | None = None
    finish: Literal["stop", "length"] = "stop"
    cut: int = 0


class Seq2Seq(Loaded[PairsContext]):
    """A loaded encoder-decoder. Safe to use from several threads, which wait for each other.

    Raises:
        BadGGUF, LoadFailed: the file cannot be loaded. UnsupportedModel: it is no encoder-decoder.
    """

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        super().__init__(path, threads)
        self.longest_text = self.model.context_trained
        """Most tokens of a text to read, those that the tokenizer adds included."""
        self.text = TextTokenizer(self.model.metadata, self.model.vocab, 1)
        if not self.model.pairs:
            self.model.close()
            raise UnsupportedModel(f"{self.model.name} is no encoder-decoder")

    def settings(self, task: str = "") -> tuple[str, Generation]:
        """What the checkpoint says of a task of this name, or of all: the prefix of its texts, and how to write."""
        said = _said(self.model.metadata)
        named: dict[str, Any] = {**said.get("default", {}), **said.get("tasks", {}).get(task, {})}
        known = {field.name for field in fields(Generation)}
        values = {key: named[key] for key in known & named.keys()}
        if "suppress_tokens" in values:
            values["suppress_tokens"] = tuple(values["suppress_tokens"])
        return str(named.get("prefix", "")), Generation(**values)

    def write(
        self,
        texts: Sequence[str],
        generation: Generation | None = None,
        *,
        truncate: bool = False,
        progress: Progress = silent,
    ) -> list[list[Written]]:
        """For each text the answers, the best first: ``num_return_sequences`` of them.

        Raises:
            BadRequest: settings that do not fit each other. ContextLengthExceeded: a text is too long.
        """
        generation = generation or self.settings()[1]
        encoded = self.text.encode_all(texts, Length(self.longest_text, truncate), progress)
        found = self.generate([text.ids for text in encoded], generation, progress)
        return [
            [self._written(tokens, score, text.cut) for tokens, score in answers]
            for text, answers in zip(encoded, found, strict=True)
        ]

    def stream(
        self, text: str, tell: Tell, generation: Generation, *, truncate: bool = False, progress: Progress = silent
    ) -> Written:
        """The answer to a text, which ``tell`` hears while it is written. Raises as :meth:`write` does."""
        if generation.slots > 1:
            raise BadRequest(
                f"only one answer can be streamed, and num_beams is {generation.num_beams}, num_return_sequences "
                f"{generation.num_return_sequences}: beams change their minds",
                hint="ask for num_beams 1, or do not stream",
                param="stream",
            )
        generation.check()
        encoded = self.text.encode(text, Length(self.longest_text, truncate))
        teller = Teller(self.text.decode, tell)
        with self._turn(progress):
            ((tokens, score),) = self._answer([encoded.ids], generation, teller.hear)[0]
        written = self._written(tokens, score, encoded.cut)
        teller.finish(written.text)
        return written

    def generate(
        self, texts: Sequence[Sequence[int]], generation: Generation, progress: Progress = silent
    ) -> list[list[Answer]]:
        """The tokens and scores of the answers to each text, which is tokens, too."""
        generation.check()
        found: list[list[Answer]] = [[] for _ in texts]
        together = max(1, MOST_SLOTS // generation.slots)
        done = 0
        for step in packing.steps([len(text) for text in texts], together, SOURCE_TOKENS):
            with self._turn(progress):
                answers = self._answer([texts[index] for index in step], generation)
            for index, answer in zip(step, answers, strict=True):
                found[index] = answer
            done += len(step)
            progress("write", done, len(texts))
        return found

    @property
    def named_tasks(self) -> tuple[str, ...]:
        """The tasks that the checkpoint says something of."""
        return tuple(_said(self.model.metadata).get("tasks", {}))

    def _answer(
        self, texts: Sequence[Sequence[int]], generation: Generation, heard: Heard | None = None
    ) -> list[list[Answer]]:
        width = generation.slots
        slots = [range(index * width, (index + 1) * width) for index in range(len(texts))]
        context = self._ready(sum(map(len, texts)), len(texts) * width, generation.longest())
        context.encode(texts, slots)
        writers = [self._writers(context, own, generation) for own in slots]
        position = 0
        while running := [writer for several in writers for writer in several if not writer.done]:
            logits = context.decode(
                [token for writer in running for token in writer.last],
                position,
                [slot for writer in running for slot in writer.slots],
            )
            ends = np.cumsum([len(writer.slots) for writer in running])
            for writer, rows in zip(running, np.split(logits, ends[:-1]), strict=True):
                writer.advance(rows)
                if writer.done:
                    for slot in writer.slots:
                        context.remove(slot)
            position += 1
            if heard is not None:
                heard(writers[0][0].results(1)[0][0])
        return [
            [answer for writer in several for answer in writer.results(generation.num_return_sequences)]
            for several in writers
        ]

    def _written(self, tokens: tuple[int, ...], score: float | None, cut: int) -> Written:
        ended = tokens[-1] in self._ends
        return Written(self.text.decode(list(tokens)), tokens, score, "stop" if ended else "length", cut)

    def _writers(self, context: PairsContext, slots: Sequence[int], generation: Generation) -> list[Writer]:
        """What writes the answers to one text."""
        constraints = Constraints(
            max_length=generation.longest(),
            ends=self._ends,
            min_length=generation.shortest(),
            no_repeat_ngram_size=generation.no_repeat_ngram_size,
            repetition_penalty=generation.repetition_penalty,
            forced_first=generation.forced_bos_token_id,
            forced_last=generation.forced_eos_token_id,
            suppressed=generation.suppress_tokens,
        )
        if generation.num_beams > 1:
            rules = Rules(len(slots), constraints.max_length, self._ends, generation.length_penalty,
                          generation.early_stopping)  # fmt: skip
            return [Beams(slots, self._start, rules, constraints, context.copy)]
        if not generation.do_sample:
            return [Greedy(slots[0], self._start, constraints)]
        odds = Odds(generation.temperature, generation.top_k, generation.top_p)
        draws = np.random.SeedSequence(generation.seed).spawn(len(slots))
        return [Sampled(slot, self._start, constraints, odds, np.random.default_rng(draw))
                for slot, draw in zip(slots, draws, strict=True)]  # fmt: skip

    @property
    def _ends(self) -> tuple[int, ...]:
        """The tokens that end an answer: the checkpoint's, or what llama.cpp takes for such."""
        return tuple(integers(self.model.metadata, "ingle.stop_token_ids")) or self.model.vocab.end_tokens()

    @property
    def _start(self) -> int:
        """The token that an answer starts from."""
        return int(str(self.model.metadata.get(f"{self.model.architecture}.decoder_start_token_id", 0)))

    def _ready(self, tokens: int, slots: int, longest: int) -> PairsContext:
        self._require_open()
        now = self._context
        cells = slots * longest
        if now is None or now.source_tokens < tokens or now.slots < slots or now.cells < cells:
            self._drop_context()
            tokens = max(64, 1 << (tokens - 1).bit_length())
            cells = -(-cells // 256) * 256
            self._context = now = PairsContext(self.model, tokens, slots, cells, self.threads, self._abort)
        return now


def _said(metadata: Mapping[str, Value]) -> dict[str, Any]:
    said = json.loads(str(metadata.get(KEY, "{}")))
    return said if isinstance(said, dict) else {}
