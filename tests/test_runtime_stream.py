"""One stream, read from threads and from asyncio."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time

import pytest
from ingle.convert.errors import BadRequest, Cancelled, ContextLengthExceeded
from ingle.runtime.engine.stream import Accepted, Finished, Stream
from ingle.runtime.request import Delta, Usage

END = Finished(Usage(prompt_tokens=3, completion_tokens=2))


def write(stream: Stream, delay: float = 0.01) -> None:
    for event in (Accepted(3), Delta(0, "a"), Delta(0, "b", finish_reason="stop"), END):
        time.sleep(delay)
        stream.put(event)


def writing(stream: Stream) -> threading.Thread:
    thread = threading.Thread(target=write, args=(stream,))
    thread.start()
    return thread


def test_a_thread_reads_to_the_end() -> None:
    stream = Stream()
    writer = writing(stream)
    stream.wait_accepted()
    assert stream.prompt_tokens == 3
    assert stream.text() == "ab"
    assert stream.usage.completion_tokens == 2
    writer.join()


def test_asyncio_reads_the_same() -> None:
    async def read() -> list[str]:
        stream = Stream()
        writer = writing(stream)
        await stream.accepted()
        texts = [delta.text async for delta in stream]
        writer.join()
        return texts

    assert asyncio.run(read()) == ["a", "b"]


def test_an_error_is_raised_where_the_stream_is_read_and_again_when_asked() -> None:
    stream = Stream()
    stream.put(ContextLengthExceeded.of(20, 10))
    for _ in range(2):
        with pytest.raises(ContextLengthExceeded, match="20 tokens"):
            stream.wait_accepted()
    with pytest.raises(ContextLengthExceeded):
        list(stream)


def test_text_before_an_error_is_not_lost() -> None:
    stream = Stream()
    stream.put(Accepted(1), Delta(0, "a"), Cancelled("gone"))
    stream.wait_accepted()
    deltas = iter(stream)
    assert next(deltas).text == "a"
    with pytest.raises(Cancelled):
        next(deltas)


def test_leaving_early_cancels_and_reading_to_the_end_does_not() -> None:
    cancelled: list[str] = []
    early, whole = Stream(), Stream()
    early.on_cancel = lambda: cancelled.append("early")
    whole.on_cancel = lambda: cancelled.append("whole")
    early.put(Accepted(1), Delta(0, "a"))
    for _ in early:
        break
    whole.put(Accepted(1), Delta(0, "a"), END)
    assert whole.text() == "a"
    with whole:
        pass
    assert cancelled == ["early"]


def test_errors_survive_a_process_border() -> None:
    error = pickle.loads(pickle.dumps(ContextLengthExceeded.of(20, 10)))
    assert (error.prompt_tokens, error.context_window, error.code) == (20, 10, "context_length_exceeded")
    other = pickle.loads(pickle.dumps(BadRequest("n is 0", param="n", hint="say 1")))
    assert (str(other), other.param) == ("n is 0\nsay 1", "n")
