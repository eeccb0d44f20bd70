"""A request in flight and the answers being written to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..llama.vocab import Vocab
from ..request import Delta, FinishReason, Request, StopDetail, TokenLogprob, Usage
from .constraint import Matcher
from .detokenizer import Detokenizer
from .drawing import TokenSource
from .governor import Record
from .lookup import Lookup
from .prompt import Prompt
from .sampling import token_logprob
from .sequence import Sequence
from .stream import Event
from .wager import Odds

Emit = Callable[[Event], None]
_REASONS: dict[StopDetail, FinishReason] = {
    "eos": "stop",
    "stop_string": "stop",
    "max_tokens": "length",
    "context_window": "length",
}


@dataclass(eq=False, slots=True)
class Choice:
    """One of a request's ``n`` answers. lookup, record: where its next tokens may be foretold, and how that fared.

    odds: how often a draft model was right.
    """

    flight: Flight
    index: int
    sequence: Sequence
    source: TokenSource
    detokenizer: Detokenizer
    matcher: Matcher | None = None
    lookup: Lookup | None = None
    record: Record = field(default_factory=Record)
    odds: Odds = field(default_factory=Odds)
    generated: int = 0
    unsent_tokens: list[int] = field(default_factory=list)
    unsent_logprobs: list[TokenLogprob] = field(default_factory=list)

    @property
    def plain(self) -> bool:
        """Whether its next token is the one with the largest logit, and nothing else is asked."""
        request = self.flight.request
        return self.source.greedy and self.matcher is None and not request.ignore_eos and request.logprobs is None

    def choose(self, logits: NDArray[np.float32], ends: NDArray[np.int64], vocab: Vocab) -> int:
        """The next token. The logits are changed where the request asks for it; ``ends`` are the tokens that end it.

        Raises:
            EngineError: the logits are not numbers, or the constraint leads nowhere.
        """
        request, wants_logprobs = self.flight.request, self.flight.request.logprobs is not None
        raw = logits.copy() if wants_logprobs else logits
        if self.matcher is not None:
            self.matcher.mask(logits)
        elif request.ignore_eos:
            logits[ends] = -np.inf
        token = self.source.next(logits)
        if (self.matcher is not None or wants_logprobs) and token not in ends:
            if self.matcher is not None:
                self.matcher.accept(token)
            if request.logprobs is not None:
                self.unsent_logprobs.append(token_logprob(raw, token, request.logprobs, vocab))
        return token

    def forced(self) -> list[int]:
        """The tokens that the constraint leaves no choice about; none where their probabilities are asked for, or where
        the request prefers some spellings of a text to others."""
        request = self.flight.request
        drawn = request.logprobs is not None or request.sampling.logit_bias
        return self.matcher.forced() if self.matcher is not None and not drawn and self in self.flight.open else []

    def accept(self, token: int) -> None:
        """A forced token comes next."""
        if self.matcher is not None:
            self.matcher.accept(token)
        self.source.accept(token)

    def append(self, token: int) -> None:
        """The answer has one more token."""
        self.sequence.tokens.append(token)
        self.unsent_tokens.append(token)
        if self.lookup is not None:
            self.lookup.saw()
            self.record.saw(self.lookup.streak)

    def ending(self, window: int) -> StopDetail | None:
        """Why the answer ends here, if it does."""
        if self.detokenizer.stopped:
            return "stop_string"
        if self.generated == self.flight.request.max_tokens:
            return "max_tokens"
        if len(self.sequence.tokens) >= window:
            return "context_window"
        return None

    def emit(self, text: str, stop_detail: StopDetail | None = None) -> None:
        """Send what is certain; tokens without text wait for the next that has some."""
        if not text and stop_detail is None and not self.unsent_logprobs:
            return
        delta = Delta(
            self.index,
            text,
            tuple(self.unsent_tokens),
            tuple(self.unsent_logprobs),
            _REASONS[stop_detail] if stop_detail else None,
            stop_detail,
        )
        self.unsent_tokens.clear()
        self.unsent_logprobs.clear()
        self.flight.emit(delta)


@dataclass(eq=False, slots=True)
class Flight:
    """A request between its arrival and its last token; ``open`` are the choices that still grow.

    matchers: one for each choice of a constrained request. shown: control tokens whose text belongs to the answer.
    """

    request: Request
    prompt: Prompt
    emit: Emit
    matchers: tuple[Matcher, ...] = ()
    shown: frozenset[int] = frozenset()
    open: list[Choice] = field(default_factory=list)
    cancelled: bool = False
    arrived: float = field(default_factory=time.monotonic)
    started: float = 0.0
    first_token: float = 0.0
    completion_tokens: int = 0
    cached_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    model_drafted_tokens: int = 0
    model_accepted_tokens: int = 0

    def usage(self) -> Usage:
        now = time.monotonic()
        started = self.started or now
        first = self.first_token or now
        return Usage(
            prompt_tokens=len(self.prompt.tokens),
            cached_tokens=self.cached_tokens,
            completion_tokens=self.completion_tokens,
            queue_s=started - self.arrived,
            prefill_s=first - started,
            decode_s=now - first,
            drafted_tokens=self.drafted_tokens,
            accepted_tokens=self.accepted_tokens,
            model_drafted_tokens=self.model_drafted_tokens,
            model_accepted_tokens=self.model_accepted_tokens,
        )
