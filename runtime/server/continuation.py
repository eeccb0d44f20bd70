"""Requests that continue prompts, whatever their dialect: what is a prompt, and how one is submitted."""

from __future__ import annotations

from typing import Any, ClassVar

from ...convert.errors import BadRequest
from ..engine.stream import Stream
from ..request import Sampling
from .errors import shown
from .openai_fields import Fields
from .pool import Servable

MOST_PROMPTS = 128


class Continuation(Fields):
    """Its ``prompt`` is a list of prompts once it is validated."""

    prompt_field: ClassVar[str] = "prompt"

    prompt: Any

    @property
    def num_prompts(self) -> int:
        return len(self.prompt)

    def submit(
        self, model: Servable, prompt: str | tuple[int, ...], sampling: Sampling, logprobs: int | None
    ) -> Stream:
        """Have ``model`` continue ``prompt`` as the fields that all dialects share say."""
        output = self.output()
        extras: dict[str, Any] = {"output": output} if output is not None else {}
        if self.priority is not None:
            extras["priority"] = self.priority
        return model.generate(
            prompt,
            sampling=sampling,
            max_tokens=self.most_tokens,
            stop=tuple(self.stop or ()),
            logprobs=logprobs,
            n=self.choices,
            ignore_eos=bool(self.ignore_eos),
            **extras,
        )


def is_token(value: Any) -> bool:
    """Whether it is a whole number, which JSON's true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def malformed(place: str, value: Any) -> BadRequest:
    """What is said of a ``value`` at ``place`` that is no prompt."""
    return BadRequest(f"{place}: a prompt is text, token ids, or a list of these (got {shown(value)})", param=place)


def unknown_token(token: int, vocabulary: int) -> BadRequest:
    return BadRequest(f"prompt names token {token} of {vocabulary}", param="prompt")
