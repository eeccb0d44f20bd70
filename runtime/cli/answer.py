"""One answer on its way to the terminal: the text as it comes, and the figures afterwards."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from ..request import FinishReason, Sampling, StopDetail, Usage
from .display import human_seconds, note

if TYPE_CHECKING:
    from ..engine.stream import Stream
    from ..model import Model

# Control characters that could move the cursor or start an escape sequence; newline and tab are harmless.
_VISIBLE = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if chr(code) not in "\n\t"}


@dataclass(frozen=True, slots=True)
class Settings:
    """How answers are asked for and shown."""

    sampling: Sampling
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    verbose: bool = False


class Answer:
    """The text of a stream, kept while it is read, so that a stopped answer is not lost. Reasoning is kept apart."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.text = ""
        self.reasoning = ""
        self.finish_reason: FinishReason | None = None
        self.stop_detail: StopDetail | None = None

    def __iter__(self) -> Iterator[str]:
        reader = self._stream.reading.reader()
        with self._stream:
            for delta in self._stream:
                pieces = reader.feed(delta.text)
                if delta.finish_reason is not None:
                    pieces = [*pieces, *reader.finish()]
                text = "".join(piece.content for piece in pieces)
                self._think("".join(piece.reasoning for piece in pieces), text)
                self.text += text
                self.finish_reason = delta.finish_reason or self.finish_reason
                self.stop_detail = delta.stop_detail or self.stop_detail
                yield text

    def _think(self, reasoning: str, text: str) -> None:
        """Show what the model thinks on a terminal, beside the answer: it is no part of it."""
        gap = "\n\n" if text and self.reasoning and not self.text else ""
        if (reasoning or gap) and sys.stderr.isatty() and sys.stdout.isatty():
            click.echo(click.style(for_terminal(reasoning), dim=True) + gap, nl=False, err=True)
        self.reasoning += reasoning

    @property
    def usage(self) -> Usage:
        return self._stream.usage

    def cancel(self) -> None:
        self._stream.cancel()

    def show(self) -> None:
        """Write the text to stdout as it comes. Stops the work when interrupted."""
        try:
            for piece in self:
                sys.stdout.write(for_terminal(piece) if sys.stdout.isatty() else piece)
                sys.stdout.flush()
        finally:
            self.cancel()

    def note_figures(self) -> None:
        """Speed figures on stderr."""
        note(figures(self.usage))

    def as_json(self) -> dict[str, Any]:
        return {
            "text": self.text,
            **({"reasoning": self.reasoning} if self.reasoning else {}),
            "finish_reason": self.finish_reason,
            "stop_detail": self.stop_detail,
            "usage": asdict(self.usage),
        }


def ask(model: Model, messages: Sequence[Mapping[str, Any]], settings: Settings) -> Answer:
    """The answer to a conversation, not yet read."""
    return Answer(model.chat(messages, sampling=settings.sampling, max_tokens=settings.max_tokens, stop=settings.stop))


def complete(model: Model, prompt: str, settings: Settings) -> Answer:
    """The continuation of a text, without a template."""
    return Answer(
        model.generate(prompt, sampling=settings.sampling, max_tokens=settings.max_tokens, stop=settings.stop)
    )


def for_terminal(text: str) -> str:
    """``text`` with control characters spelled out: what a model writes must not steer the terminal."""
    return text.translate(_VISIBLE)


def figures(usage: Usage) -> str:
    """``prompt 34 tokens (12 cached), 0.10 s, 220.0 tokens/s; answer 64 tokens, 0.80 s, 80.0 tokens/s``; and, where
    tokens were foretold, ``; 30 of 45 foretold tokens were right``."""
    foretold = f"; {usage.accepted_tokens} of {usage.drafted_tokens} foretold tokens were right"
    if usage.model_drafted_tokens:
        foretold += f" (of the draft model's {usage.model_accepted_tokens} of {usage.model_drafted_tokens})"
    evaluated = usage.prompt_tokens - usage.cached_tokens
    return (
        f"prompt {usage.prompt_tokens} tokens ({usage.cached_tokens} cached), {_speed(evaluated, usage.prefill_s)}; "
        f"answer {usage.completion_tokens} tokens, {_speed(usage.completion_tokens, usage.decode_s)}"
        f"{foretold if usage.drafted_tokens else ''}"
    )


def end_line(text: str) -> None:
    """Bring the cursor to the start of a line after ``text``."""
    if text and not text.endswith("\n"):
        click.echo()


def _speed(tokens: int, seconds: float) -> str:
    return f"{human_seconds(seconds)}, {tokens / seconds:.1f} tokens/s" if seconds > 0 else human_seconds(seconds)
