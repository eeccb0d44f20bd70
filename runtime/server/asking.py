"""What the requests of the newer dialects have in common: unknown fields reported, a chat made of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError

from ...convert.errors import BadRequest
from ..engine.stream import Stream
from ..request import ModelInfo
from .chat import Chat
from .errors import UnknownParameter, UnsupportedParameter, of_validation, shown
from .openai_fields import Part, harmless
from .pool import Servable

Parsed = TypeVar("Parsed", bound="Asking")


class Asking(Part):
    """A request that is one chat.

    unsupported: fields that would change the answer, and the values of them that ask for nothing. without_effect:
    fields that are understood and change nothing here; they are reported with the ignored ones.
    """

    prompt_field: ClassVar[str] = "messages"
    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType({})
    without_effect: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def parse(cls: type[Parsed], body: Mapping[str, Any]) -> Parsed:
        """Raise :class:`BadRequest` that names the field, or return the request."""
        for name, values in cls.unsupported.items():
            if not harmless(body.get(name), values):
                raise UnsupportedParameter(f"{name} is not supported (got {shown(body[name])})", param=name)
        try:
            asked = cls.model_validate(dict(body))
        except ValidationError as error:
            raise of_validation(error) from error
        asked.examine()
        return asked

    def examine(self) -> None:
        """Raise :class:`BadRequest` for what fits no field's type and yet makes no sense."""

    @property
    def choices(self) -> int:
        return 1

    @property
    def num_prompts(self) -> int:
        return 1

    @property
    def keep_alive_s(self) -> float | None:
        """Seconds that the model is to stay in memory after this; None for as it is."""
        return None

    @property
    def includes_usage(self) -> bool:
        return True

    def ignored(self, strict: bool) -> list[str]:
        """Fields without a meaning here; under ``strict`` those that nobody knows are refused.

        Raises:
            UnknownParameter: ``strict``, and there is one.
        """
        names = [name for name in self.unknown() if name not in self.unsupported]
        if strict and names:
            raise UnknownParameter(f"{names[0]} is not a field of this request", param=names[0])
        return names + [name for name in self.without_effect if getattr(self, name, None) is not None]

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
