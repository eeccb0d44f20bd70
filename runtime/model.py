"""A model to talk to: what a program embeds, and what the server serves."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from ..convert.errors import BadRequest
from ..convert.progress import Progress, silent
from .chat import Conversation, Output, pictures
from .chat.compiling import checked
from .chat.formats import PLAIN
from .chat.grammar import AnswerGrammar
from .engine.engine import Engine, EngineLike
from .engine.process import EngineProcess
from .engine.stream import Stream
from .options import AdapterFile, Isolation, LoadOptions
from .request import Constraint, EngineStats, Image, ModelInfo, Priority, Request, Sampling


class Model:
    """A loaded model. Safe to use from several threads and from asyncio; a context manager.

        with Model.load("./examples/bard") as model:
            for delta in model.chat([{"role": "user", "content": "Who art thou?"}]):
                print(delta.text, end="")

    ``async for`` reads the same stream without blocking. Leaving a stream early cancels its work.
    """

    def __init__(self, engine: EngineLike, adapters: tuple[str, ...] | None = None, owner: str = "") -> None:
        self._engine = engine
        self._adapters = adapters
        self._owner = owner
        self._conversation = Conversation.of_info(engine.info)

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        options: LoadOptions | None = None,
        adapters: Sequence[str | Path | AdapterFile] = (),
        isolation: Isolation = "thread",
        progress: Progress = silent,
    ) -> Model:
        """Load a model by name: ``org/name[:TYPE][@revision]``, a checkpoint folder (``./x``) or a ``.gguf`` file.

        What is not here yet is fetched, converted, proven and quantized first; ``progress`` hears of it.
        ``adapters`` are LoRA adapters as GGUF (``ingle convert`` makes them), added together to the model's weights;
        :meth:`adapted` chooses among them. ``isolation`` chooses a thread of this process, or a child process that a
        native crash cannot leave.

        Raises:
            IngleError: see ``ingle.convert.errors`` for the tree.
        """
        from .store.build import obtain, with_draft
        from .store.store import Store

        place = str(name.absolute()) if isinstance(name, Path) else name
        store = Store()
        entry = obtain(place, store, progress=progress)
        files = (file if isinstance(file, AdapterFile) else AdapterFile(str(file)) for file in adapters)
        options = with_draft(options or LoadOptions(), store, progress)
        beside = str(entry.projector.path) if entry.projector else None
        options = replace(options, adapters=(*options.adapters, *files), mmproj=options.mmproj or beside)
        home = EngineProcess if isolation == "process" else Engine
        return cls(home(entry.path, options))

    def adapted(self, *names: str) -> Model:
        """The same loaded model, answering with these of its adapters only, or with none of them.

        It is the same to close either. An unknown name is refused by the first request.
        """
        return Model(self._engine, names, self._owner)

    def owned_by(self, owner: str) -> Model:
        """The same loaded model, whose prefix cache knows ``owner``'s prompts by themselves: nobody else's requests
        find them, or can tell by their time that they were there. It is the same to close either."""
        return Model(self._engine, self._adapters, owner)

    @property
    def info(self) -> ModelInfo:
        """What the file says of the model, and what was decided when it was loaded."""
        return self._engine.info

    @property
    def alive(self) -> bool:
        """Whether it still answers."""
        return self._engine.alive

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
        n: int = 1,
        ignore_eos: bool = False,
        output: Output | None = None,
        priority: Priority = "normal",
    ) -> Stream:
        """Continue ``prompt``: a text (control tokens in it count as such) or token ids, taken as they are.

        output: the shape that the continuation must have (a JSON schema, a regular expression, ...). priority: see
        :class:`~ingle.runtime.request.Request`.
        """
        if output is not None:
            output = checked(output)
        request = Request(
            prompt if isinstance(prompt, str) else tuple(prompt),
            sampling or Sampling(),
            max_tokens,
            tuple(stop),
            logprobs,
            n,
            ignore_eos,
            adapters=self._adapters,
            constraint=Constraint(AnswerGrammar(PLAIN, {}).of(output=output), output.param) if output else None,
            priority=priority,
            owner=self._owner,
        )
        return self._engine.submit(request)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
        n: int = 1,
        ignore_eos: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str = "auto",
        parallel_tool_calls: bool = True,
        output: Output | None = None,
        priority: Priority = "normal",
        **template_arguments: Any,
    ) -> Stream:
        """Answer a conversation, rendered by the model's own chat template.

        The content of a message is a text, or a list of parts: ``{"type": "text", "text": ...}`` and, for models that
        see, ``{"type": "image", "image": path_or_bytes}`` or OpenAI's ``image_url`` with a data URL.

        tools: functions that the model may call; ``tool_choice`` as in :meth:`Conversation.prompt`, and
        ``continue_final_message=True`` to go on from a last message of the assistant. output: the shape
        that the content must have; priority: see :class:`~ingle.runtime.request.Request`. The deltas are what the
        model writes, markup and all;
        ``stream.reading`` takes it apart into reasoning, content and calls.

        Raises:
            TemplateError: the model has no chat template, or it refuses the messages.
            BadRequest: a message or a tool is not of the right shape, or a picture comes to a model that reads text.
        """
        for name in template_arguments.keys() & {field.name for field in fields(Sampling)}:
            raise BadRequest(f"{name} is not for the template", hint=f"write sampling=Sampling({name}=...)", param=name)
        bare, images = pictures.take(messages)
        image_text = self._image_text(images[0], bool(tools)) if images else ""
        prompt = self._conversation.prompt(
            bare,
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=parallel_tool_calls,
            output=output,
            **template_arguments,
        )
        request = Request(
            prompt.text,
            sampling or Sampling(),
            max_tokens,
            tuple(stop),
            logprobs,
            n,
            ignore_eos,
            add_special=False,
            images=images,
            image_text=image_text,
            adapters=self._adapters,
            cuts=prompt.cuts,
            markers=prompt.reading.form.markers,
            constraint=Constraint(prompt.grammar, prompt.param) if prompt.grammar else None,
            priority=priority,
            owner=self._owner,
        )
        stream = self._engine.submit(request)
        stream.reading = prompt.reading
        return stream

    def render(self, messages: Sequence[Mapping[str, Any]], **template_arguments: Any) -> str:
        """The prompt that :meth:`chat` makes of ``messages``."""
        return self._conversation.prompt(pictures.take(messages)[0], **template_arguments).text

    def _image_text(self, image: Image, with_tools: bool) -> str:
        """What stands for a picture in a prompt; refuses ``image`` where the model reads text only."""
        if not self.info.projector:
            raise BadRequest(
                f"{image.where}: this model reads no pictures",
                hint="a vision model needs its projector: --mmproj FILE",
                param=image.where,
            )
        return self._conversation.image_text(with_tools=with_tools)

    def count(self, messages: Sequence[Mapping[str, Any]], **template_arguments: Any) -> int:
        """Tokens of the prompt that :meth:`chat` makes of ``messages``, rows of pictures included."""
        bare, images = pictures.take(messages)
        image_text = self._image_text(images[0], bool(template_arguments.get("tools"))) if images else ""
        prompt = self._conversation.prompt(bare, **template_arguments)
        counted = Request(prompt.text, add_special=False, images=images, image_text=image_text, cuts=prompt.cuts)
        return self._engine.count(counted)

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of ``text``, as the checkpoint's own tokenizer gives them."""
        return self._engine.tokenize(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """Text of ``tokens``; control tokens show only if ``special``."""
        return self._engine.detokenize(tokens, special=special)

    def stats(self) -> EngineStats:
        """Counters and gauges of the engine."""
        return self._engine.stats()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """To be called on an event loop that reads most of the answers: it then gets them with fewer wake-ups.

        The model must be closed before the loop is.
        """
        self._engine.attach(loop)

    def close(self) -> None:
        """Stop what runs and give the memory back. May be called twice."""
        self._engine.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
