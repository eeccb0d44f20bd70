"""What a client posts, in any dialect: known fields checked, unsupported ones refused, unknown ones reported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import UnknownParameter, UnsupportedParameter, of_validation, path, shown

Parsed = TypeVar("Parsed", bound="Posted")
ModelName = Annotated[str, Field(min_length=1, max_length=512)] | None
"""Which model; None for the one that the server was started with, where it was started with one."""


class Part(BaseModel):
    """A JSON object whose unknown fields are kept, to be reported; ``"5"`` is no number and ``true`` is none either."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, frozen=True, protected_namespaces=())

    def unknown(self, location: tuple[int | str, ...] = ()) -> Iterator[str]:
        """Paths of the fields that nobody knows, nested ones too."""
        yield from (path((*location, name)) for name in self.model_extra or ())
        for name in type(self).model_fields:
            yield from _unknown_in(getattr(self, name), (*location, name))


class Posted(Part):
    """The body of a request.

    unsupported: fields that would change the answer, and the values of them that ask for nothing.
    """

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType({})

    @classmethod
    def parse(cls: type[Parsed], body: Mapping[str, Any]) -> Parsed:
        """Raise :class:`BadRequest` that names the field, or return the request."""
        for name, values in cls.unsupported.items():
            if not _asks_for_nothing(body.get(name), values):
                raise UnsupportedParameter(f"{name} is not supported (got {shown(body[name])})", param=name)
        try:
            posted = cls.model_validate(dict(body))
        except ValidationError as error:
            raise of_validation(error) from error
        posted.examine()
        return posted

    def examine(self) -> None:
        """Raise :class:`BadRequest` for what fits every field's type and yet makes no sense."""

    def ignored(self, strict: bool) -> list[str]:
        """Fields without a meaning here; under ``strict`` they are refused.

        Raises:
            UnknownParameter: ``strict``, and there is one.
        """
        names = [name for name in self.unknown() if name not in self.unsupported]
        if strict and names:
            raise UnknownParameter(f"{names[0]} is not a field of this request", param=names[0])
        return names


def _unknown_in(value: Any, location: tuple[int | str, ...]) -> Iterator[str]:
    if isinstance(value, Part):
        yield from value.unknown(location)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown_in(item, (*location, index))


def _asks_for_nothing(value: Any, values: tuple[Any, ...]) -> bool:
    return value is None or any(type(value) is type(item) and value == item for item in values)
