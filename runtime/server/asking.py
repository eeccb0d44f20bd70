"""What the requests of the newer dialects have in common: unknown fields reported, a chat made of them."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from ...convert.errors import BadRequest
from ..engine.stream import Stream
from ..request import ModelInfo
from .chat import Chat
from .keeping import Kept
from .pool import Servable


class Asking(Kept):
    """A request that is one chat.

    without_effect: fields that are understood and change nothing here; they are reported with the ignored ones.
    """

    prompt_field: ClassVar[str] = "messages"
    without_effect: ClassVar[tuple[str, ...]] = ()

    @property
    def choices(self) -> int:
        return 1

    @property
    def num_prompts(self) -> int:
        return 1

    @property
    def includes_usage(self) -> bool:
        return True

    def ignored(self, strict: bool) -> list[str]:
        """As :meth:`.posted.Posted.ignored`, and fields without effect, which are never refused."""
        return super().ignored(strict) + [name for name in self.without_effect if getattr(self, name, None) is not None]

    def check(self, info: ModelInfo) -> None:
        """Raise :class:`BadRequest` for values that only the loaded model can tell to be wrong."""
        chat = self.chat(info)
        if chat.max_tokens is not None and chat.max_tokens > info.context_length:
            raise BadRequest(
                f"{chat.max_tokens} tokens are asked for; the window of this model has {info.context_length}",
                param="max_tokens",
            )

    @abstractmethod
    def chat(self, info: ModelInfo) -> Chat:
        """What is asked of the model."""

    def start(self, model: Servable, prompt: int) -> Stream:
        """Submit it. Blocks: the template is rendered here."""
        return self.chat(model.info).start(model)
