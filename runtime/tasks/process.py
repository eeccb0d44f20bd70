"""An encoder in a child process, for the server: it loads no native library, and outlives a native crash."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ...convert import child as child_process
from ...convert.errors import Cancelled, EngineClosed, EngineCrashed, IngleError, UnsupportedModel
from ..request import EngineStats, ModelInfo, Sampling

STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class Embedded:
    """vectors: (texts, dimensions). num_tokens: of all texts, those that the tokenizer adds included."""

    vectors: NDArray[np.float32]
    num_tokens: int


class EncoderProcess:
    """A loaded encoder. Same errors as :class:`~.encoder.Encoder`, and ``EngineCrashed`` when its process dies."""

    def __init__(self, path: Path) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                child_process.command("ingle.runtime.tasks.process:serve", str(theirs.fileno()), str(path)),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env=child_process.environment(),
            )
        self._connection = Connection(ours.detach())
        self._lock = threading.Lock()
        self._failure: IngleError | None = None
        try:
            self._info: ModelInfo = self._answer()
        except IngleError:
            self.close()
            raise

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def alive(self) -> bool:
        return self._failure is None and self._process.poll() is None

    def embed(self, texts: Sequence[str], left: threading.Event | None = None) -> Embedded:
        """One vector per text. ``left``: set when nobody waits for them any more.

        Raises:
            BadRequest, ContextLengthExceeded: as :meth:`Encoder.embed`; nothing is cut. Cancelled: ``left`` was set.
        """
        rows, num_tokens = [], 0
        for text in texts:
            if left is not None and left.is_set():
                raise Cancelled("the request was cancelled")
            vector, count = self._call(text)
            rows.append(vector)
            num_tokens += count
        return Embedded(np.stack(rows), num_tokens)

    def chat(self, messages: Sequence[Any], **settings: Any) -> NoReturn:
        raise self._mute()

    def generate(self, prompt: str | Sequence[int], *, sampling: Sampling | None = None, **settings: Any) -> NoReturn:
        raise self._mute()

    def render(self, messages: Sequence[Any], **settings: Any) -> NoReturn:
        raise self._mute()

    def count(self, messages: Sequence[Any], **settings: Any) -> NoReturn:
        raise self._mute()

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        tokens: list[int] = self._call(("tokenize", text, add_special, parse_special))
        return tokens

    def detokenize(self, tokens: Sequence[int], *, special: bool = False) -> str:
        return str(self._call(("detokenize", tuple(tokens), special)))

    def adapted(self, *names: str) -> EncoderProcess:
        """Itself. Raises :class:`UnsupportedModel` for any adapter: they are of models that write."""
        if names:
            raise UnsupportedModel(f"{self._info.name} takes no adapters")
        return self

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing streams from here: answers are waited for in threads."""

    def stats(self) -> EngineStats:
        return EngineStats()

    def close(self) -> None:
        """End the child. May be called twice."""
        self._failure = self._failure or EngineClosed("the engine was shut down")
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._connection.close()

    def _mute(self) -> UnsupportedModel:
        return UnsupportedModel(
            f"{self._info.name} is a {self._info.architecture} model, which does not generate text",
            hint="it embeds: use /v1/embeddings",
        )

    def _call(self, question: Any) -> Any:
        with self._lock:
            if self._failure is not None:
                raise self._failure
            try:
                self._connection.send(question)
            except OSError:
                raise self._crash() from None
            return self._answer()

    def _answer(self) -> Any:
        try:
            answer = self._connection.recv()
        except (EOFError, OSError):
            raise self._crash() from None
        if isinstance(answer, IngleError):
            raise answer
        return answer

    def _crash(self) -> IngleError:
        if self._failure is None:
            manner = child_process.manner_of_death(self._process.wait())
            self._failure = EngineCrashed(f"the encoder process {manner}", hint="send the request again")
        return self._failure


def serve() -> None:
    """The child: its arguments are the file descriptor of the socket and the path of the model."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    try:
        with _loaded(Path(sys.argv[2])) as encoder:
            connection.send(_info(encoder, Path(sys.argv[2])))
            while True:
                connection.send(_answered(encoder, connection.recv()))
    except IngleError as error:
        connection.send(error)
    except (EOFError, OSError):  # the parent is gone
        os._exit(0)


def _loaded(path: Path) -> Any:
    from .encoder import Encoder

    return Encoder(path)


def _answered(encoder: Any, question: Any) -> Any:
    try:
        if isinstance(question, str):
            return encoder.embed([question])[0], len(encoder.tokenize(question))
        verb, *arguments = question
        vocab = encoder.model.vocab
        if verb == "tokenize":
            return vocab.tokenize(arguments[0], add_special=arguments[1], parse_special=arguments[2])
        return vocab.detokenize(arguments[0], special=arguments[1])
    except IngleError as error:
        return error


def _info(encoder: Any, path: Path) -> ModelInfo:
    model = encoder.model
    return ModelInfo(
        name=model.name,
        path=str(path),
        architecture=model.architecture,
        parameters=model.parameters,
        size_bytes=model.size_bytes,
        vocabulary=model.vocab.size,
        context_trained=model.context_trained,
        context_length=encoder.longest_text,
        context_reason="all that the model reads",
        kv_cells=0,
        kv_bytes=0,
        flash_attention="off",
        parallel=1,
        threads=encoder.threads,
        threads_prefill=encoder.threads,
        gpu_layers=model.gpu_layers,
        chat_templates={},
        special_tokens={},
        eog_tokens=(),
        sampling=Sampling(),
    )
