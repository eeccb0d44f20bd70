"""The engine in a thread of this process."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ...convert.errors import BadRequest, ContextLengthExceeded, IngleError
from ..llama.model import NativeModel
from ..llama.projector import NativeProjector
from ..machine import resident_bytes, thread_count
from ..options import LoadOptions
from ..request import EngineStats, ModelInfo, Request
from . import prompt as prompts
from . import sampling
from .at_exit import close_at_exit
from .choice import Emit, Flight
from .constraint import Grammars, Matcher
from .drafter import Drafter, context_for_drafts
from .info import context_options, model_info
from .loop import Loop
from .plan import LoadPlan, plan
from .prompt import Prompt
from .stream import Stream

if TYPE_CHECKING:
    import asyncio

COUNTED_EXACTLY = 1 << 20
"""Characters of a text that is always tokenized, however small the window, so that an error can give the number."""


class EngineLike(Protocol):
    """What every home of the engine offers. All methods may be called from any thread."""

    @property
    def info(self) -> ModelInfo: ...
    @property
    def alive(self) -> bool: ...
    def submit(self, request: Request) -> Stream: ...
    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]: ...
    def detokenize(self, tokens: Sequence[int], *, special: bool = False) -> str: ...
    def count(self, request: Request) -> int: ...
    def stats(self) -> EngineStats: ...
    def attach(self, loop: asyncio.AbstractEventLoop) -> None: ...
    def close(self) -> None: ...


class Engine:
    """A model that a thread of this process runs. ``after_round`` is called by that thread after each of its steps, and
    told whether the next one is being made at once and will be quick. ``owed_bytes`` of the memory that seems free were
    promised to other engines.

    Raises:
        InputError: options that contradict each other. BadGGUF, LoadFailed: a file that cannot be loaded.
        UnsupportedModel: a model that does not generate text.
    """

    def __init__(
        self,
        path: Path,
        options: LoadOptions | None = None,
        *,
        after_round: Callable[[bool], None] = lambda goes_on: None,
        owed_bytes: int = 0,
    ) -> None:
        options = options or LoadOptions()
        self._projector: NativeProjector | None = None
        drafter: Drafter | None = None
        decided = plan(path, options, owed_bytes)
        self._model = NativeModel(
            path,
            gpu_layers=options.gpu_layers,
            mmap=options.mmap,
            repack=decided.way.repack,
            adapters=options.adapters,
            file=decided.file,
        )
        try:
            self._projector = _projector(options, self._model)
            self._info = model_info(self._model, options, decided)
            self._model.forget_vocabulary()
            drafter = _drafter(decided, self._info, options)
            self._loop = Loop(self._model, self._projector, drafter, self._info, options, after_round)
            self._grammars = Grammars(self._model.vocab, self._info.eog_tokens)
            self._shown = functools.lru_cache(maxsize=64)(self._find_shown)
        except BaseException:
            if drafter is not None:
                drafter.close()
            if self._projector is not None:
                self._projector.close()
            self._model.close()
            raise
        self._thread = threading.Thread(target=self._loop.run, name="ingle-engine", daemon=True)
        self._thread.start()
        close_at_exit(self)

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def alive(self) -> bool:
        return not self._loop.stopped

    def submit(self, request: Request) -> Stream:
        """Queue a request; its answer, or its error, comes through the stream."""
        stream = Stream()
        flight = self.launch(request, stream.put)
        if flight is not None:
            stream.on_cancel = lambda: self._loop.cancel(flight)
        return stream

    def launch(self, request: Request, emit: Emit) -> Flight | None:
        """Check, tokenize and queue a request whose events go to ``emit``; None if it was refused there."""
        try:
            flight = Flight(request, self._prompt(request), emit, self._matchers(request), self._shown(request.markers))
            self._loop.enter(flight)
        except IngleError as error:
            emit(error)
            return None
        return flight

    def cancel(self, flight: Flight) -> None:
        """Stop the work for a flight of :meth:`launch`."""
        self._loop.cancel(flight)

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        return self._model.vocab.tokenize(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, tokens: Sequence[int], *, special: bool = False) -> str:
        return self._model.vocab.detokenize(tokens, special=special)

    def count(self, request: Request) -> int:
        """Tokens of a request's prompt, rows of pictures included, whether or not they fit the window."""
        return len(prompts.read(request, self._model.vocab, self._projector).tokens)

    def stats(self) -> EngineStats:
        return replace(self._loop.stats(), resident_bytes=resident_bytes())

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing to do: the thread that computes wakes whoever waits."""

    def close(self) -> None:
        """Stop at once and free the model; requests in flight end with ``EngineClosed``. May be called twice."""
        self._loop.stop()
        self._thread.join()

    def __del__(self) -> None:
        if hasattr(self, "_thread"):
            self._loop.stop()

    def _prompt(self, request: Request) -> Prompt:
        """The prompt as tokens that fit the window.

        Raises:
            BadRequest: a field is out of range. ContextLengthExceeded: no room for an answer.
        """
        sampling.validate(request, self._info.vocabulary)
        self._refuse_unknown_adapters(request)
        if isinstance(request.prompt, str):
            self._refuse_endless(request.prompt)
        prompt = prompts.read(request, self._model.vocab, self._projector)
        if not prompt.tokens:
            raise BadRequest("the prompt is empty, and this model has no token that begins a text", param="prompt")
        if len(prompt.tokens) >= self._info.context_length:
            raise ContextLengthExceeded.of(len(prompt.tokens), self._info.context_length)
        return prompt

    def _refuse_unknown_adapters(self, request: Request) -> None:
        loaded = [adapter.name for adapter in self._info.adapters]
        for name in request.adapters or ():
            if name not in loaded:
                raise BadRequest(
                    f"there is no adapter {name[:100]!r} beside this model",
                    hint=f"loaded: {', '.join(loaded) or 'none'}",
                    param="adapters",
                )

    def _matchers(self, request: Request) -> tuple[Matcher, ...]:
        """One for each choice. Raises :class:`BadRequest` for a grammar that cannot be compiled."""
        if request.constraint is None:
            return ()
        return tuple(self._grammars.matcher(request.constraint) for _ in range(request.n))

    def _find_shown(self, markers: str) -> frozenset[int]:
        """The control tokens in a text."""
        tokens = self.tokenize(markers, add_special=False, parse_special=True) if markers else []
        return frozenset(token for token in tokens if not self._model.vocab.piece(token))

    def _refuse_endless(self, text: str) -> None:
        """A huge text that cannot fit the window whatever its tokens are is refused before minutes go into them."""
        fewest = self._model.vocab.fewest_tokens(text) if len(text) > COUNTED_EXACTLY else 0
        if fewest >= self._info.context_length:
            raise ContextLengthExceeded.of(fewest, self._info.context_length, at_least=True)


def _projector(options: LoadOptions, model: NativeModel) -> NativeProjector | None:
    if options.mmproj is None:
        return None
    return NativeProjector(Path(options.mmproj), model, options.threads_prefill or options.threads or thread_count())


def _drafter(decided: LoadPlan, info: ModelInfo, options: LoadOptions) -> Drafter | None:
    pair = decided.draft
    if pair is None:
        return None
    model = NativeModel(
        pair.file.path, gpu_layers=options.gpu_layers, mmap=options.mmap, repack=pair.repack, file=pair.file
    )
    model.forget_vocabulary()
    try:
        return Drafter(model, context_for_drafts(context_options(info, options)), pair.vocabulary)
    except BaseException:
        model.close()
        raise
