"""A model's chat template: sandboxed Jinja that renders exactly as transformers does. The only door to jinja2.

The sandbox keeps a template from executing code or changing what it is given. It does not bound time or memory beyond
the limits below; a template that multiplies strings to death needs a process that can be killed, which is not here yet.
"""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from ...convert.errors import TemplateError

if TYPE_CHECKING:
    import jinja2

MAX_TEMPLATE_BYTES = 256 << 10
MAX_OUTPUT_CHARACTERS = 64 << 20
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")

Message = Mapping[str, Any]


class Template:
    """One template of one model. ``special_tokens``: ``bos_token``, ``eos_token``, ... as text.

    It is compiled when it is first rendered. Safe to use from several threads.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        self.source = source
        self.special_tokens = dict(special_tokens)
        self._lock = threading.Lock()
        self._compiled: jinja2.Template | None = None

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> str:
        """The prompt text. ``variables`` reach the template by their names and may replace special tokens.

        Raises:
            TemplateError: the template is broken, or it refused the messages; the message says which.
        """
        template = self._compile()
        context = {**self.special_tokens, "documents": None, **variables}
        context |= {"messages": [_plain(_with_reasoning(message)) for message in messages]}
        context |= {"tools": _plain(tools), "add_generation_prompt": add_generation_prompt}
        with _failures("refused the messages"):
            return _join(template.generate(context))

    def _compile(self) -> jinja2.Template:
        with self._lock:
            if self._compiled is None:
                if len(self.source.encode()) > MAX_TEMPLATE_BYTES:
                    raise TemplateError(f"the chat template has more than {MAX_TEMPLATE_BYTES:,} bytes")
                with _failures("is broken"):
                    self._compiled = _environment().from_string(self.source)
            return self._compiled


class _failures:  # noqa: N801 - reads as a statement
    """Turns whatever a template throws into :class:`TemplateError`: it is foreign code, anything can come out."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TemplateError) or error is None or not isinstance(error, Exception):
            return
        import jinja2

        line = f" (line {error.lineno})" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        text = str(error) or type(error).__name__
        raise TemplateError(f"the chat template {self._what}{line}: {text}", param="messages") from error


def _join(pieces: Iterable[str]) -> str:
    parts: list[str] = []
    length = 0
    for piece in pieces:
        parts.append(piece)
        length += len(piece)
        if length > MAX_OUTPUT_CHARACTERS:
            raise TemplateError(f"the chat template wrote more than {MAX_OUTPUT_CHARACTERS:,} characters")
    return "".join(parts)


def _with_reasoning(message: Message) -> dict[str, Any]:
    """Fields without a value are gone, and reasoning is found under the names that templates read."""
    given = {key: value for key, value in message.items() if value is not None}
    reasoning = next((given[field] for field in REASONING_FIELDS if field in given), None)
    if reasoning is None:
        return given
    return {"thinking": reasoning, **given, "reasoning_content": reasoning}


def _plain(value: Any) -> Any:
    """A copy made of JSON types only, so that a template meets no object with methods of its own."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return f"<{type(value).__name__}>"


@functools.cache
def _environment() -> jinja2.Environment:
    """The sandbox, with what templates on the hub rely on."""
    import jinja2
    import jinja2.ext
    import jinja2.sandbox

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_generation_tag(), jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "dict": _dictionary,
        "namespace": _namespace(),
    }
    return environment


def _generation_tag() -> type[Any]:
    """``{% generation %}...{% endgeneration %}`` marks an assistant's words for training; here it prints its body."""
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser

    class GenerationTag(Extension):
        tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    return GenerationTag


def _namespace() -> type[Any]:
    """``namespace`` without names that begin with an underscore."""
    from jinja2.exceptions import SecurityError
    from jinja2.utils import Namespace

    def check(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"a chat template may not store {name!r} in a namespace")

    class SafeNamespace(Namespace):
        def __init__(*args: Any, **values: Any) -> None:
            for name in dict(*args[1:], **values):
                check(name)
            Namespace.__init__(*args, **values)

        def __setitem__(self, name: str, value: Any) -> None:
            check(name)
            super().__setitem__(name, value)

    return SafeNamespace


def _dictionary(*args: Any, **values: Any) -> dict[Any, Any]:
    return dict(*args, **values)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Not jinja2's own filter, which escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(f"the chat template refused the messages: {message}", param="messages")
