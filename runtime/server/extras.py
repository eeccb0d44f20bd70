"""The local extras: a model's own tokens and prompts. Fields as in llama.cpp's server; ``prompt`` as in vLLM's."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from ...convert.errors import BadRequest
from ..chat import Continuing
from ..chat.toolbox import checked
from .keeping import Kept
from .openai_chat import ChatRequest, Message, tool_choice_of
from .pool import Servable
from .posted import ModelName

MOST_TOKENS = 1 << 20


class Extra(Kept):
    model: ModelName = None


class TokenizeRequest(Extra):
    content: str | None = None
    prompt: str | None = None
    add_special: bool | None = None
    parse_special: bool | None = None
    with_pieces: bool | None = None

    def answer(self, model: Servable) -> dict[str, Any]:
        text = self.content if self.content is not None else self.prompt
        if text is None:
            raise BadRequest("content is missing", param="content")
        tokens = model.tokenize(text, add_special=bool(self.add_special), parse_special=self.parse_special is not False)
        shown = [self._shown(model, token) for token in tokens] if self.with_pieces else tokens
        return {"tokens": shown, "count": len(tokens), "max_model_len": model.info.context_length}

    def _shown(self, model: Servable, token: int) -> dict[str, Any]:
        return {"id": token, "piece": model.detokenize([token], special=True)}


class DetokenizeRequest(Extra):
    tokens: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=MOST_TOKENS)]

    def answer(self, model: Servable) -> dict[str, Any]:
        text = model.detokenize(self.tokens, special=True)
        return {"content": text, "prompt": text}


class ApplyTemplateRequest(Extra):
    """The prompt that a chat would be."""

    messages: Annotated[list[Message], Field(min_length=1)]
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: Continuing | None = None

    def answer(self, model: Servable) -> dict[str, Any]:
        bare = self.add_generation_prompt is False and not self.continue_final_message
        asked = ChatRequest.parse(
            self.model_dump(exclude_none=True, exclude={"add_generation_prompt"} if bare else None)
            | ({"continue_final_message": False} if bare else {})
        )
        checked(asked.tools, tool_choice_of(asked.tool_choice))
        chat = asked.chat(model.info)
        if bare:
            chat = replace(chat, variables={**chat.variables, "add_generation_prompt": False})
        return {"prompt": chat.render(model)}


class CountRequest(ChatRequest):
    """A chat, of which only the tokens of the prompt are counted."""

    def answer(self, model: Servable) -> dict[str, Any]:
        return {"object": "chat.completion.input_tokens", "input_tokens": self.chat(model.info).count(model)}
