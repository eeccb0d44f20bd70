"""``/v1/completions``: one prompt or a list, text or token ids. Pure functions and values; exchange.py has the road."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from ...convert.errors import BadRequest
from ..engine.stream import Stream
from ..request import Delta, ModelInfo, Usage
from .chat import Opening
from .continuation import MOST_PROMPTS, Continuation, is_token, malformed, unknown_token
from .openai_fields import MOST_LOGPROBS, UNSUPPORTED
from .openai_shapes import Head, LegacyLogprobs, ending, with_usage
from .pool import Servable

Prompt = str | tuple[int, ...]


def prompts_of(value: Any) -> list[Prompt]:
    """``"a"``, ``["a", "b"]``, ``[1, 2]`` and ``[[1, 2], [3]]`` as a list of prompts.

    Raises:
        BadRequest: it is none of these; ``param`` is the path of the fault.
    """
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        raise malformed("prompt", value)
    if is_token(value[0]):
        return [_ids("prompt", value)]
    if len(value) > MOST_PROMPTS:
        raise BadRequest(f"prompt: {len(value)} prompts are more than {MOST_PROMPTS}", param="prompt")
    return [_one(f"prompt[{index}]", item) for index, item in enumerate(value)]


def _one(place: str, value: Any) -> Prompt:
    if isinstance(value, str):
        return value
    return _ids(place, value)


def _ids(place: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise malformed(place, value)
    for index, token in enumerate(value):
        if not is_token(token) or token < 0:
            raise malformed(f"{place}[{index}]", token)
    return tuple(value)


class CompletionRequest(Continuation):
    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
        {
            **UNSUPPORTED,
            "tools": (None, []),
            "tool_choice": (None, "none", "auto"),
            "reasoning_effort": (None,),
            "suffix": (None, ""),
        }
    )

    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    best_of: int | None = None
    echo: bool | None = None

    @field_validator("prompt")
    @classmethod
    def _several_ways(cls, value: Any) -> list[Prompt]:
        return prompts_of(value)

    @field_validator("best_of")
    @classmethod
    def _best_of_all(cls, count: int | None, facts: Any) -> int | None:
        if count is not None and count != (facts.data.get("n") or 1):
            raise ValueError("choosing the best among more than n is not supported")
        return count

    @field_validator("echo")
    @classmethod
    def _echo_of_text(cls, echo: bool | None, facts: Any) -> bool | None:
        if echo and facts.data.get("logprobs") is not None:
            raise ValueError("with logprobs is not supported: a prompt has none")
        if echo and not all(isinstance(prompt, str) for prompt in facts.data.get("prompt") or ()):
            raise ValueError("of token ids is not supported: send the prompt as text")
        return echo

    def check(self, info: ModelInfo) -> None:
        super().check(info)
        for prompt in self.prompt:
            if not isinstance(prompt, str) and max(prompt) >= info.vocabulary:
                raise unknown_token(max(prompt), info.vocabulary)

    def start(self, model: Servable, prompt: int) -> Stream:
        """Submit the prompt of that number."""
        return self.submit(model, self.prompt[prompt], self.sampling(), self.logprobs)

    def _echoed(self) -> tuple[str, ...]:
        """What each choice begins with."""
        return tuple(str(prompt) for prompt in self.prompt for _ in range(self.choices)) if self.echo else ()

    def writer(self, opening: Opening) -> CompletionWriter:
        return CompletionWriter(
            Head.of("cmpl", opening.model, opening.info), self.choices, self.logprobs is not None, self._echoed()
        )


class CompletionWriter:
    """Writes one answer in the shape of completions; choice ``i`` of prompt ``p`` has the index ``p * n + i``."""

    def __init__(self, head: Head, choices_per_prompt: int, logprobs: bool, echoed: tuple[str, ...] = ()) -> None:
        self._head = head
        self._per_prompt = choices_per_prompt
        self._logprobs = logprobs
        self._echoed = dict(enumerate(echoed))  # by choice, until it has begun
        self._offsets: dict[int, LegacyLogprobs] = {}

    def chunks(self, prompt: int, delta: Delta) -> Iterator[dict[str, Any]]:
        index = prompt * self._per_prompt + delta.index
        yield self._head.object("text_completion", [self._choice(index, [delta])])

    def last_chunks(self, used: Usage) -> Iterator[dict[str, Any]]:
        yield with_usage(self._head.object("text_completion", []), used)

    def whole(self, deltas: list[list[Delta]], used: Usage) -> dict[str, Any]:
        """``deltas``: by choice."""
        choices = [self._choice(index, pieces) for index, pieces in enumerate(deltas)]
        return with_usage(self._head.object("text_completion", choices), used)

    def _choice(self, index: int, pieces: list[Delta]) -> dict[str, Any]:
        text = self._echoed.pop(index, "") + "".join(piece.text for piece in pieces)
        return {"index": index, "text": text, "logprobs": self._logprobs_of(index, pieces)} | ending(pieces[-1])

    def _logprobs_of(self, index: int, pieces: list[Delta]) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        offsets = self._offsets.setdefault(index, LegacyLogprobs())
        return offsets.of(token for piece in pieces for token in piece.logprobs)
