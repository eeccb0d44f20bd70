"""An answer that the conversation has begun: its last message is the assistant's, and the model goes on from there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from ...convert.errors import BadRequest, TemplateError
from .formats import AnswerFormat
from .grammar import CHANNELS, NEXT
from .reader import Reading

END = "\ue5b1"
"""Marks the end of what is there of the answer; no text has it."""

Continuing = bool | Literal["content", "reasoning_content"]
"""Whether to go on from the last message; where to be, once it is written down, unless that is plain from it."""


def checked(messages: Sequence[Mapping[str, Any]], how: Continuing) -> None:
    """Raise :class:`BadRequest` unless the last message is one that can be gone on from."""
    last = messages[-1]
    if last.get("role") != "assistant":
        raise _refused("the last message is not the assistant's: there is no answer to continue")
    if len(messages) < 2 or messages[-2].get("role") == "assistant":
        raise _refused("the last message, which is to be continued, answers nothing")
    if last.get("tool_calls"):
        raise _refused("the last message has tool calls, which cannot be continued")
    if isinstance(last.get("content"), list) and any(part["type"] != "text" for part in last["content"]):
        raise _refused("the last message has pictures, which cannot be continued")
    if how == "reasoning_content" and last.get("content"):
        raise _refused("the last message has content: its reasoning is over", "continue_final_message")


def unshaped(param: str) -> BadRequest:
    """What is said of an answer that was begun and must have a shape, too."""
    return _refused("an answer that has been begun cannot be held to a shape or a call", param)


def continued(
    last: Mapping[str, Any], reading: Reading, how: Continuing, shown: Callable[[Mapping[str, Any]], str]
) -> tuple[str, Reading]:
    """What the last message adds to a prompt that ``reading`` is of, and how to read what follows. ``shown``: what the
    template writes behind that prompt for a message; empty where it begins answers otherwise.

    Raises:
        TemplateError: the message has reasoning, and the template knows of none.
    """
    content, reasoning = _text(last.get("content")), str(last.get("reasoning_content") or "")
    thinks = how == "reasoning_content" or (how is True and bool(reasoning) and not content)
    form = reading.form
    if (reasoning or thinks) and not form.channels and not form.reasoning[1].strip():
        raise TemplateError("the chat template of this model knows of no reasoning to continue", param="messages")
    if form.channels:
        text = _in_channels(form, content, reasoning, thinks)
    else:
        end = {"reasoning_content": reasoning + END} if thinks else {"content": content + END}
        text, found, _ = shown({**last, "content": content, **end}).partition(END)
        if not found or reasoning not in text:
            text = _in_marks(form, content, reasoning, reading.reasons, thinks)
    return text, replace(reading, reasons=thinks, begun="", continued=True)


def _in_channels(form: AnswerFormat, content: str, reasoning: str, thinks: bool) -> str:
    channel = CHANNELS[form.channels]
    thought = channel.thought + reasoning if reasoning or thinks else ""
    if thinks:
        return thought
    return (f"{thought}{channel.end}{NEXT}" if thought else "") + channel.content + content


def _in_marks(form: AnswerFormat, content: str, reasoning: str, opened: bool, thinks: bool) -> str:
    """With the line breaks that most models write."""
    opening, closing = form.reasoning
    begin = "" if opened else f"{opening}\n" if opening else ""
    if thinks:
        return begin + reasoning
    thought = f"{begin}{reasoning}\n{closing}\n\n" if opened or reasoning else ""
    return thought + form.content[0] + content


def _text(content: Any) -> str:
    return "\n".join(str(part["text"]) for part in content) if isinstance(content, list) else str(content or "")


def _refused(message: str, param: str = "messages") -> BadRequest:
    hint = 'a last message of the assistant is continued unless "add_generation_prompt" is true'
    return BadRequest(message, hint=hint, param=param)
