"""A task as something with a name: what it takes, what it can be told, what is refused before any work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...convert.errors import BadRequest
from ...convert.progress import Progress
from .text_stream import Tell

Settings = dict[str, Any]
TOKENS = "tokens"
Run = Callable[[Any, Sequence[Any], Settings, Progress], list[Any]]
"""A loaded model (an Encoder, or a Seq2Seq for a task that writes), inputs with their keys, all parameters with values,
and whom to tell how far it is -> one result per input."""
Stream = Callable[[Any, Any, Settings, Progress, Tell], Any]
"""The same for one input, whose answer is told while it is written."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """Something a task can be told. kind: the type of its value, or of each where there are ``several``. least: of a
    whole number."""

    kind: type
    default: Any = None
    several: bool = False
    required: bool = False
    help: str = ""
    least: int = 1


@dataclass(frozen=True, slots=True)
class Task:
    """fields: the keys of an input, the optional ones with ``?``, a list of texts with ``*``; the first stands for the
    whole where it is alone. writes: needs a model that writes (a Seq2Seq), not one that reads. stream: where an answer
    can be told while it is written. tokens: an input may also be ``{"tokens": [...]}``: ids, and texts that nothing is
    put around."""

    name: str
    help: str
    fields: tuple[str, ...]
    run: Run
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    writes: bool = False
    stream: Stream | None = None
    tokens: bool = False

    def settings(self, given: Mapping[str, Any]) -> Settings:
        """All parameters with their values.

        Raises:
            BadRequest: one is unknown, missing, or of the wrong type.
        """
        unknown = [name for name in given if name not in self.parameters]
        if unknown:
            raise BadRequest(
                f"{self.name} has no parameter {unknown[0]!r}",
                hint=f"it has {', '.join(self.parameters) or 'none'}",
                param=unknown[0],
            )
        return {name: _value(self.name, name, kind, given.get(name)) for name, kind in self.parameters.items()}

    def inputs(self, given: Sequence[Any]) -> list[dict[str, Any]]:
        """Each input with its keys; a bare text is the first of them, if the others may be missing.

        Raises:
            BadRequest: an input does not have the keys or types that it must.
        """
        return [self._input(index, one) for index, one in enumerate(given)]

    def _input(self, index: int, given: Any) -> dict[str, Any]:
        names = {name.rstrip("?*"): name for name in self.fields}
        required = [name for name, marked in names.items() if not marked.endswith("?")]
        value = {next(iter(names)): given} if isinstance(given, str) else given
        if self.tokens and isinstance(value, Mapping) and TOKENS in value:
            return _tokens(index, value)
        if not isinstance(value, Mapping) or any(name not in value for name in required):
            raise BadRequest(f"input {index} of {self.name} must have {' and '.join(required)}", param="input")
        for name, one in value.items():
            if name not in names:
                raise BadRequest(f"input {index} of {self.name} has {name!r}; it can have {', '.join(names)}",
                                 param="input")  # fmt: skip
            if not _fits(one, str, names[name].endswith("*")):
                wanted = "a list of texts" if names[name].endswith("*") else "a text"
                raise BadRequest(f"{name} of input {index} must be {wanted}", param="input")
        return dict(value)


def _tokens(index: int, given: Mapping[str, Any]) -> dict[str, Any]:
    tokens = given[TOKENS]
    if len(given) > 1 or not isinstance(tokens, list) or not tokens:
        raise BadRequest(f"tokens of input {index} must be a list of token ids, and stand alone", param="input")
    if wrong := next((one for one in tokens if not (_fits(one, str, False) or _fits(one, int, False))), None):
        raise BadRequest(f"{str(wrong)[:60]} in the tokens of input {index} is neither an id nor a text", param="input")
    return dict(given)


def _value(task: str, name: str, parameter: Parameter, given: Any) -> Any:
    if given is None:
        if parameter.required:
            raise BadRequest(f"{task} needs {name}: {parameter.help}", param=name)
        return parameter.default
    if not _fits(given, parameter.kind, parameter.several):
        kind = f"{'a list of ' if parameter.several else ''}{parameter.kind.__name__}"
        raise BadRequest(f"{name} of {task} must be {kind}, not {str(given)[:60]!r}", param=name)
    if parameter.kind is int and given < parameter.least:
        raise BadRequest(f"{name} of {task} is {given}, and must be at least {parameter.least}", param=name)
    return tuple(given) if parameter.several else given


def _fits(value: Any, kind: type, several: bool) -> bool:
    if several:
        return isinstance(value, list | tuple) and all(_fits(one, kind, False) for one in value)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, (int, float) if kind is float else kind)
