"""What the two processes of an engine say to each other arrives as it was said, however the bytes are cut."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest
from ingle.convert.errors import Cancelled, EngineCrashed
from ingle.runtime.engine.process import EngineProcess
from ingle.runtime.engine.stream import Accepted, Event, Finished
from ingle.runtime.engine.wire import Answer, Events, Wire
from ingle.runtime.engine.worker import TOGETHER_S, Worker
from ingle.runtime.request import Delta, Request, Sampling, TokenLogprob, Usage

TEXTS: tuple[tuple[int, Event], ...] = ((1, Delta(0, "a", (5,))), (2, Delta(1, "\N{SNOWMAN}\0", (6, 7))))
OTHERS: tuple[tuple[int, Event], ...] = (
    (1, Accepted(3)),
    (1, Delta(0, "b", (5,), (TokenLogprob(5, b"\xff", -0.5),))),
    (2, Delta(0, "", (), (), "stop", "eos")),
    (2, Finished(Usage(1, 2, 3))),
    (3, Cancelled("gone")),
)


@pytest.fixture
def ends() -> Iterator[tuple[Wire, Wire]]:
    ends = tuple(map(Wire, socket.socketpair()))
    yield ends
    for end in ends:
        end.close()


@pytest.mark.parametrize("events", [TEXTS, OTHERS, TEXTS + OTHERS], ids=["texts", "others", "both"])
def test_events_arrive_as_they_were_sent(ends: tuple[Wire, Wire], events: tuple[tuple[int, Event], ...]) -> None:
    ends[0].send_events(events)
    (message,) = ends[1].receive()
    assert isinstance(message, Events)
    assert [(stream, type(event), repr(event)) for stream, event in message.events] == [
        (stream, type(event), repr(event)) for stream, event in events
    ]


def test_the_text_of_one_choice_is_joined(ends: tuple[Wire, Wire]) -> None:
    ends[0].send_events([*TEXTS, (1, Delta(0, "b", (8,))), (2, Delta(0, "x", (9,)))])
    (message,) = ends[1].receive()
    assert message == Events(((1, Delta(0, "ab", (5, 8))), TEXTS[1], (2, Delta(0, "x", (9,)))))


class Recorder(Wire):
    """A wire that nobody listens to."""

    def __init__(self) -> None:
        self.sent: list[list[Event]] = []

    def send_events(self, events: Iterable[tuple[int, Event]]) -> None:
        self.sent.append([event for _, event in events])


def test_quick_text_waits_for_more_and_nothing_else_does() -> None:
    wire = Recorder()
    worker = Worker(wire)
    first, more, last = Delta(0, "a", (1,)), Delta(0, "b", (2,)), Delta(0, "c", (3,), (), "stop", "eos")
    for event, goes_on in ((first, True), (more, True), (more, True), (more, False), (more, True), (last, True)):
        worker._emit(1, event)
        worker.flush(goes_on)
    assert wire.sent == [[first], [more, more, more], [more, last]]
    worker._sent -= TOGETHER_S
    worker._emit(1, more)
    worker.flush(goes_on=True)
    assert wire.sent[-1] == [more]


def test_a_message_that_comes_in_pieces_is_whole() -> None:
    near, far = socket.socketpair()
    sender, receiver, relay = Wire(near), *map(Wire, socket.socketpair())
    sender.send(Answer(7, "x" * 100))
    sender.send_events(TEXTS)
    data = far.recv(10_000)
    received = []
    for start in range(0, len(data), 9):
        relay._socket.sendall(data[start : start + 9])
        received += receiver.receive()
    assert received == [Answer(7, "x" * 100), Events(TEXTS)]
    for end in (sender, receiver, relay, far):
        end.close()


def test_who_waits_can_be_told_to_stop(ends: tuple[Wire, Wire]) -> None:
    waiting = threading.Thread(target=ends[0].wait)
    waiting.start()
    ends[0].stop_waiting()
    waiting.join(5)
    assert not waiting.is_alive()
    ends[1].send("more")
    assert not ends[0].wait(), "it was told to stop for good"


def test_an_end_that_is_gone_is_noticed(ends: tuple[Wire, Wire]) -> None:
    ends[0].close()
    assert ends[1].wait()
    with pytest.raises(EOFError):
        ends[1].receive()
    ends[0].close()


def test_an_event_loop_reads_the_engine_and_may_ask_it_things_itself(bard_gguf: Mapping[str, Path]) -> None:
    engine = EngineProcess(bard_gguf["f16"])
    alone = engine.submit(Request("The king", Sampling(temperature=0), max_tokens=12)).text()

    async def read() -> tuple[str, int]:
        engine.attach(asyncio.get_running_loop())
        stream = engine.submit(Request("The king", Sampling(temperature=0), max_tokens=12))
        text = [delta.text async for delta in stream]
        written = engine.stats().generated_tokens + await asyncio.to_thread(lambda: engine.stats().generated_tokens)
        await asyncio.to_thread(engine.close)
        await asyncio.sleep(0)
        return "".join(text), written

    assert asyncio.run(read()) == (alone, 48)
    engine.close()


def test_an_event_loop_learns_of_a_crash(bard_gguf: Mapping[str, Path]) -> None:
    engine = EngineProcess(bard_gguf["f16"])

    async def read() -> None:
        engine.attach(asyncio.get_running_loop())
        stream = engine.submit(Request("The king", max_tokens=400, ignore_eos=True))
        async for _ in stream:
            os.kill(engine._process.pid, signal.SIGKILL)

    with pytest.raises(EngineCrashed, match="SIGKILL"):
        asyncio.run(read())
    assert not engine.alive
    engine.close()
