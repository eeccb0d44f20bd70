"""The one place where messages become a prompt."""

from __future__ import annotations

import functools
import json
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from ...convert import chat_template, special
from ...convert.errors import BadRequest, TemplateError
from ...convert.gguf import Value
from ..request import ModelInfo
from . import compiling, continuing, families, toolbox
from .continuing import Continuing
from .formats import AnswerFormat
from .grammar import AnswerGrammar
from .history import Defuser, cut, prepared
from .output import Output
from .probe import answer_format
from .prompt import Prompt
from .reader import Reading
from .template import Message, Template
from .toolbox import ToolChoice

ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
DEFAULT = chat_template.DEFAULT
TOOL_USE = "tool_use"
_PROBE = "a8Wq3"
_TEXT_PART = {"type": "text", "text": _PROBE}


class Conversation:
    """The chat templates of one model. Safe to use from several threads.

    templates: by name; ``default`` for ordinary chats, ``tool_use`` (if there is one) for chats with tools.
    special_tokens: ``bos_token``, ``eos_token``, ... as text.
    control_tokens: ids by text of all tokens that no message may forge.
    """

    def __init__(
        self,
        templates: Mapping[str, str],
        special_tokens: Mapping[str, str],
        control_tokens: Mapping[str, int] | None = None,
    ) -> None:
        self._templates = {name: Template(source, special_tokens) for name, source in templates.items()}
        self._takes = functools.lru_cache(maxsize=None)(_takes)
        self._image_text = functools.lru_cache(maxsize=None)(_image_text)
        self._control_tokens = control_tokens or {}
        self._defuser = Defuser(self._control_tokens)
        self._lock = threading.Lock()
        self._format: AnswerFormat | None = None

    @classmethod
    def of(cls, metadata: Mapping[str, Value]) -> Conversation:
        """From the metadata of a GGUF file, ours or anybody's."""
        return cls(chat_template.from_metadata(metadata), special_tokens(metadata))

    @classmethod
    def of_info(cls, info: ModelInfo) -> Conversation:
        """Of a loaded model."""
        return cls(info.chat_templates, info.special_tokens, info.control_tokens)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._templates)

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> str:
        """The prompt. Content given as a list of parts reaches the template so if it takes parts, and joined by
        newlines otherwise; content given as text reaches it as one part if it takes nothing else.

        Raises:
            BadRequest: a message has a wrong shape, or has a picture that the template has no place for; ``param``
                names it (``messages[3].content``).
            TemplateError: there is no template, it is broken, or it refuses the messages.
        """
        check(messages)
        template = self.template(with_tools=bool(tools))
        messages = [self._suited(message, template, f"messages[{n}]") for n, message in enumerate(messages)]
        return template.render(messages, add_generation_prompt=add_generation_prompt, tools=tools or None, **variables)

    def prompt(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: ToolChoice = "auto",
        parallel_tool_calls: bool = True,
        output: Output | None = None,
        continue_final_message: Continuing = False,
        **variables: Any,
    ) -> Prompt:
        """A prompt, how its answers are to be read, and the grammar that they must keep to.

        tools: ``{"type": "function", "function": {"name", "description", "parameters"}}``. tool_choice: ``auto``,
        ``none``, ``required``, or the name of the tool that must be called. output: the shape of the content.
        continue_final_message: the last message is the beginning of the answer.

        Raises:
            BadRequest: as :meth:`render`; or a tool, or the choice of one, makes no sense; or the last message cannot
                be continued.
            TemplateError: as :meth:`render`; or there are tools, and the template does not know of any.
        """
        check(messages)
        offered = toolbox.checked(tools, tool_choice)
        wanted = toolbox.wanted(offered, tool_choice)
        output = compiling.checked(output) if output is not None else None
        if continue_final_message:
            continuing.checked(messages, continue_final_message)
            if wanted or output is not None:
                raise continuing.unshaped("tool_choice" if output is None else output.param)
        for name, schema in wanted or (offered.items() if output is not None else ()):
            compiling.check_schema(
                {"type": "object", **schema}, f"tools[{list(offered).index(name)}].function.parameters"
            )
        form = self.answer_format()
        if offered and not form.shows_tools:
            raise TemplateError("this model's chat template does not know of tools", param="tools")
        defused, mark = self._defuser.defused([prepared(messages, form), list(tools or ()) if offered else None])
        extra = families.variables(self.template(with_tools=bool(offered)).source, defused[1])
        asked = defused[0][:-1] if continue_final_message else defused[0]
        rendered = self.render(asked, tools=defused[1], **(extra | variables))
        text, cuts = cut(rendered, mark)
        reading = _reading(form, text, offered, parallel_tool_calls, bool(wanted))
        if continue_final_message:
            shown = functools.partial(self._shown, rendered, asked, tools=defused[1], **(extra | variables))
            begun, reading = continuing.continued(defused[0][-1], reading, continue_final_message, shown)
            text, cuts = cut(rendered + begun, mark)
        grammar = ""
        if wanted or output is not None:
            writer = AnswerGrammar(form, self._control_tokens, reading.reasons, reading.begun)
            everything = wanted or (tuple(offered.items()) if output is not None else ())
            grammar = writer.of(tools=everything, several=parallel_tool_calls, output=None if wanted else output)
        return Prompt(text, cuts, reading, grammar, "tools" if wanted else output.param if output else "")

    def _shown(self, prompt: str, before: Sequence[Message], last: Message, **settings: Any) -> str:
        """What the template writes behind ``prompt`` for an answer; empty where it writes otherwise."""
        try:
            text = self.render([*before, last], **{**settings, "add_generation_prompt": False})
        except TemplateError:
            return ""
        return text[len(prompt) :] if text.startswith(prompt) else ""

    def answer_format(self) -> AnswerFormat:
        """How the answers of this model are written. Found by rendering the template, once."""
        with self._lock:
            if self._format is None:
                self._format = answer_format(self.template(), self.template(with_tools=True))
            return self._format

    def image_text(self, *, with_tools: bool = False) -> str:
        """What the template writes for a picture. Raises :class:`TemplateError` when it has no place for one."""
        text = self._image_text(self.template(with_tools=with_tools))
        if not text:
            raise TemplateError("the chat template of this model has no place for pictures", param="messages")
        return text

    def _suited(self, message: Message, template: Template, where: str) -> Message:
        """The message in the form that the template reads."""
        content = message.get("content")
        if isinstance(content, list) and not self._takes(template, parts=True):
            return _joined(message, where)
        if isinstance(content, str) and not self._takes(template, parts=False) and self._takes(template, parts=True):
            return {**message, "content": [{"type": "text", "text": content}]}
        return message

    def template(self, *, with_tools: bool = False) -> Template:
        """The template that such a chat uses. Raises :class:`TemplateError` when the model has none."""
        names = (TOOL_USE, DEFAULT) if with_tools else (DEFAULT,)
        found = next((self._templates[name] for name in names if name in self._templates), None)
        if found is not None:
            return found
        if self._templates:
            raise TemplateError(
                f"this model has the chat templates {', '.join(self._templates)}, and none for ordinary chats"
            )
        raise TemplateError(
            "this model has no chat template",
            hint="it continues text: use completions instead (Model.generate, /v1/completions)",
        )


def _reading(form: AnswerFormat, prompt: str, tools: Mapping[str, Any], several: bool, demanded: bool) -> Reading:
    """How to read what follows ``prompt``: it may have opened the reasoning, or begun a call."""
    end = prompt.rstrip()
    opening = form.reasoning[0].strip()
    marks = (form.tools.call[0].strip(),) if form.tools and form.tools.kind == "named" else ()
    begun = next((mark for mark in marks if mark and end.endswith(mark)), "")
    return Reading(form, bool(opening) and end.endswith(opening), begun, tools, several, demanded)


def special_tokens(metadata: Mapping[str, Value]) -> dict[str, str]:
    """``bos_token``, ``eos_token``, ... as text: what the checkpoint named, or by the ids of a foreign file."""
    named = metadata.get(special.TEXTS_KEY)
    if isinstance(named, str):
        return {str(name): str(text) for name, text in json.loads(named).items()}
    tokens = metadata.get("tokenizer.ggml.tokens")
    texts = tokens if isinstance(tokens, list) else []
    ids = {f"{role}_token": metadata.get(key) for role, key in special.ID_KEYS.items()}
    return {name: texts[index] for name, index in ids.items() if isinstance(index, int) and 0 <= index < len(texts)}


def check(messages: Sequence[Message]) -> None:
    """Raise :class:`BadRequest` for messages that no template could take."""
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        raise BadRequest(f"messages must be a list, not {type(messages).__name__}", param="messages")
    if not messages:
        raise BadRequest("messages is empty", param="messages")
    for index, message in enumerate(messages):
        _check_message(message, f"messages[{index}]")


def _check_message(message: Message, where: str) -> None:
    if not isinstance(message, Mapping):
        raise BadRequest(f"{where} must be an object, not {type(message).__name__}", param=where)
    role = message.get("role")
    if not isinstance(role, str) or not ROLE.fullmatch(role):
        raise BadRequest(f"{where}.role must be a word like 'user', not {role!r:.80}", param=f"{where}.role")
    content = message.get("content")
    if isinstance(content, list):
        for index, part in enumerate(content):
            _check_part(part, f"{where}.content[{index}]")
    elif content is None and not message.get("tool_calls"):
        raise BadRequest(f"{where}.content is missing", param=f"{where}.content")
    elif content is not None and not isinstance(content, str):
        raise BadRequest(
            f"{where}.content must be a text or a list of text parts, not {type(content).__name__}",
            param=f"{where}.content",
        )


def _check_part(part: Any, where: str) -> None:
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    if part == {"type": "image"}:
        return
    if kind != "text" or not isinstance(part.get("text"), str):
        raise BadRequest(f'{where} must be {{"type": "text", "text": ...}}; it is of type {kind!r:.80}', param=where)


def _joined(message: Message, where: str) -> Message:
    parts = message["content"]
    for index, part in enumerate(parts):
        if part["type"] != "text":
            where = f"{where}.content[{index}]"
            raise BadRequest(f"{where}: the chat template of this model has no place for pictures", param=where)
    return {**message, "content": "\n".join(part["text"] for part in parts)}


def _takes(template: Template, *, parts: bool) -> bool:
    """Whether a text, or a list of parts, comes out as its text: the template is tried on one."""
    try:
        text = template.render([{"role": "user", "content": [_TEXT_PART] if parts else _PROBE}])
    except TemplateError:
        return False
    return _PROBE in text and "'text'" not in text and '"text"' not in text


def _image_text(template: Template) -> str:
    """What appears in a rendered prompt when a picture stands between two texts; nothing where none does."""
    if not _takes(template, parts=True):
        return ""
    try:
        without, having = (
            template.render([{"role": "user", "content": [_TEXT_PART, *picture, _TEXT_PART]}])
            for picture in ([], [{"type": "image"}])
        )
    except TemplateError:
        return ""
    begin = common_length(without, having)
    end = common_length(without[begin:][::-1], having[begin:][::-1])
    return having[begin : len(having) - end].strip()


def common_length(first: str, second: str) -> int:
    """How many characters two texts begin with together."""
    return next(
        (n for n, (one, other) in enumerate(zip(first, second, strict=False)) if one != other),
        min(len(first), len(second)),
    )
