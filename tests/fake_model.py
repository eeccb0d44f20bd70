"""A model that follows a script, behind the interface of ``ingle.runtime.model.Model``; and a catalog of such models.

As a program it is a server: ``python tests/fake_model.py --prefill 0.5`` prints its URL and serves until a signal.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ingle.convert.errors import (
    BadRequest,
    Cancelled,
    ContextLengthExceeded,
    EngineCrashed,
    IngleError,
    ModelNotFound,
    QueueFull,
)
from ingle.runtime.chat import Conversation, pictures
from ingle.runtime.engine.stream import Accepted, Finished, Stream
from ingle.runtime.request import Delta, EngineStats, ModelInfo, Sampling, TokenLogprob, Usage
from ingle.runtime.server.pool import Installed

PIECES = ("Once", " upon", " a", " time", ".")
INFO = ModelInfo(
    name="fake",
    path="fake.gguf",
    architecture="llama",
    parameters=5_000_000,
    size_bytes=10_000_000,
    vocabulary=1000,
    context_trained=2048,
    context_length=512,
    context_reason="memory",
    kv_cells=1024,
    kv_bytes=1_000_000,
    flash_attention="off",
    parallel=4,
    threads=2,
    threads_prefill=2,
    gpu_layers=0,
    chat_templates={"default": "{{ messages }}"},
    special_tokens={},
    eog_tokens=(2,),
    sampling=Sampling(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05),
    warnings=("GPU layers were asked for, but this build has no GPU support",),
)


@dataclass(frozen=True)
class Script:
    """What a fake model does with each request. Times in seconds; ``fails`` is raised by ``submit``, ``refuses`` comes
    before acceptance, ``breaks`` after ``breaks_after`` pieces. With a ``template``, answers are read by its format."""

    pieces: tuple[str, ...] = PIECES
    prefill_s: float = 0.0
    piece_s: float = 0.0
    fails: Exception | None = None
    refuses: IngleError | None = None
    breaks: IngleError | None = None
    breaks_after: int = 0
    queue: int = 1000
    template: str = ""


@dataclass(eq=False)
class Work:
    """One submitted request, as the tests look at it."""

    prompt: Any
    asked: dict[str, Any]
    cancelled: threading.Event = field(default_factory=threading.Event)
    cancelled_at: float = 0.0
    ended: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        if not self.cancelled.is_set():
            self.cancelled_at = time.monotonic()
            self.cancelled.set()


class FakeModel:
    """One thread per request; words are tokens."""

    def __init__(self, name: str = "fake", script: Script | None = None) -> None:
        self.info = replace(INFO, name=name)
        self.script = script or Script()
        if self.script.template:
            self.info = replace(self.info, chat_templates={"default": self.script.template})
        self.conversation = Conversation.of_info(self.info)
        self.alive = True
        self.closed = False
        self.works: list[Work] = []
        self.adapters: tuple[str, ...] | None = None
        self.owners: list[str] = []

    def chat(self, messages: Sequence[dict[str, Any]], **asked: Any) -> Stream:
        if not self.script.template:
            return self._submit(" ".join(str(message["content"]) for message in messages), messages, asked)
        about = ("tools", "tool_choice", "parallel_tool_calls", "output", "continue_final_message")
        prompt = self.conversation.prompt(
            pictures.take(messages)[0], **{key: asked[key] for key in about if key in asked}
        )
        stream = self._submit(prompt.text, messages, asked)
        stream.reading = prompt.reading
        return stream

    def generate(self, prompt: str | Sequence[int], **asked: Any) -> Stream:
        return self._submit(prompt, prompt, asked)

    def adapted(self, *names: str) -> FakeModel:
        """Remembers the adapters that were asked for last."""
        self.adapters = names
        return self

    def owned_by(self, owner: str) -> FakeModel:
        """Remembers whose requests came."""
        self.owners.append(owner)
        return self

    def render(self, messages: Sequence[dict[str, Any]], **asked: Any) -> str:
        return self.conversation.prompt(pictures.take(messages)[0], **asked).text

    def count(self, messages: Sequence[dict[str, Any]], **asked: Any) -> int:
        return len(self.render(messages, **asked).split())

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        return [len(word) for word in text.split()]

    def detokenize(self, tokens: Sequence[int], *, special: bool = False) -> str:
        return " ".join("x" * token for token in tokens)

    def stats(self) -> EngineStats:
        running = sum(not work.ended.is_set() for work in self.works)
        return EngineStats(steps=7, generated_tokens=35, running=running, kv_cells=self.info.kv_cells)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def close(self) -> None:
        self.closed = True
        self.alive = False
        for work in self.works:
            work.cancel()

    def crash(self) -> None:
        self.alive = False
        for work in self.works:
            work.cancel()

    def _submit(self, prompt: str | Sequence[int], raw: Any, asked: dict[str, Any]) -> Stream:
        if self.script.fails is not None:
            raise self.script.fails
        work = Work(raw, asked)
        stream = Stream()
        stream.on_cancel = work.cancel
        running = sum(not other.ended.is_set() for other in self.works)
        self.works.append(work)
        num_tokens = len(prompt.split()) if isinstance(prompt, str) else len(prompt)
        refusal = self.script.refuses
        if num_tokens > self.info.context_length - 1:
            refusal = ContextLengthExceeded.of(num_tokens, self.info.context_length)
        elif running >= self.script.queue:
            refusal = QueueFull("1 request is running and the queue holds no more", hint="try again")
        if refusal is not None:
            work.ended.set()
            stream.put(refusal)
        else:
            stream.put(Accepted(num_tokens))
            threading.Thread(target=self._answer, args=(work, stream, num_tokens), daemon=True).start()
        return stream

    def _answer(self, work: Work, stream: Stream, num_tokens: int) -> None:
        try:
            written = self._write(work, stream)
            stream.put(Finished(Usage(num_tokens, num_tokens // 2, written, 0.01, 0.5, 0.25)))
        except IngleError as error:
            stream.put(error)
        finally:
            work.ended.set()

    def _write(self, work: Work, stream: Stream) -> int:
        n = work.asked.get("n", 1)
        most = work.asked.get("max_tokens") or len(self.script.pieces)
        pieces = self.script.pieces[:most]
        ending: Any = ("length", "max_tokens") if len(pieces) < len(self.script.pieces) else ("stop", "eos")
        self._wait(work, self.script.prefill_s)
        for number, piece in enumerate(pieces):
            if self.script.breaks is not None and number == self.script.breaks_after:
                raise self.script.breaks
            self._wait(work, self.script.piece_s)
            for index in range(n):
                stream.put(Delta(index, piece, (number,), self._logprobs(work, number, piece)))
        for index in range(n):
            stream.put(Delta(index, "", (), (), *ending))
        return len(pieces) * n

    def _logprobs(self, work: Work, number: int, piece: str) -> tuple[TokenLogprob, ...]:
        count = work.asked.get("logprobs")
        if count is None:
            return ()
        top = tuple(TokenLogprob(number + place, piece.encode() + b"!" * place, -1.0 - place) for place in range(count))
        return (TokenLogprob(number, piece.encode(), -1.0, top),)

    def _wait(self, work: Work, seconds: float) -> None:
        if work.cancelled.wait(seconds) or not self.alive:
            raise Cancelled("cancelled") if self.alive or self.closed else EngineCrashed("the engine process died")


class FakeCatalog:
    """Models by name; remembers every one it loaded."""

    def __init__(self, *names: str, script: Script | None = None, load_s: float = 0.0) -> None:
        self.names = list(names)
        self.script = script or Script()
        self.load_s = load_s
        self.fails: IngleError | None = None
        self.loads: list[FakeModel] = []

    def list(self) -> list[Installed]:
        return [Installed(name, f"{name}.gguf", 10_000_000, 1_700_000_000, type="Q8_0") for name in self.names]

    def find(self, name: str) -> Installed:
        for installed in self.list():
            if installed.name == name:
                return installed
        raise ModelNotFound(
            f"there is no model {name!r} here", hint=f"available: {', '.join(self.names)}", param="model"
        )

    def default(self) -> Installed:
        if len(self.names) != 1:
            raise BadRequest("model is missing", hint=f"available: {', '.join(self.names)}", param="model")
        return self.find(self.names[0])

    def fetch(self, name: str, progress: Any) -> Installed:
        progress("downloading", 5, 10)
        time.sleep(0.15)
        if name == "org/broken":
            raise ModelNotFound("the hub has no org/broken")
        self.names.append(name)
        return self.find(name)

    def remove(self, name: str) -> None:
        self.names.remove(self.find(name).name)

    def load(self, installed: Installed) -> FakeModel:
        time.sleep(self.load_s)
        if self.fails is not None:
            raise self.fails
        model = FakeModel(installed.name, self.script)
        self.loads.append(model)
        return model

    @property
    def model(self) -> FakeModel:
        """The one loaded last."""
        return self.loads[-1]


def main() -> None:
    from ingle.runtime.server.listening import ServeOptions, listen
    from ingle.runtime.server.serve import serve

    parser = argparse.ArgumentParser()
    parser.add_argument("--prefill", type=float, default=0.0)
    parser.add_argument("--piece", type=float, default=0.0)
    parser.add_argument("--load", type=float, default=0.0)
    parser.add_argument("--drain", type=float, default=30.0)
    given = parser.parse_args()
    logging.basicConfig(level="INFO")
    options = ServeOptions(port=0, drain_timeout_s=given.drain)
    catalog = FakeCatalog("fake", script=Script(prefill_s=given.prefill, piece_s=given.piece), load_s=given.load)
    serve(listen(options), options, catalog, ["fake"], announce)
    sys.stderr.write(f"native library loaded: {'llama_cpp' in sys.modules}\n")


def announce(url: str) -> None:
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
