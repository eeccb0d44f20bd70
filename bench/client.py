"""An HTTP client that adds as little as it can between the server and the clock: while an answer comes in it notes
what came when, and reads it once all is there. Whatever it did in between would be taken from the cores measured."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

END_OF_STREAM = b"[DONE]"


@dataclass
class Answer:
    """What came back and when, in seconds of ``time.perf_counter``. ``events`` are the pieces with text in them."""

    status: int = 0
    sent: float = 0.0
    ended: float = 0.0
    events: list[float] = field(default_factory=list)
    text: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict)
    body: bytes = b""

    @property
    def gaps_s(self) -> list[float]:
        """Between pieces of the answer."""
        return [later - earlier for earlier, later in zip(self.events, self.events[1:], strict=False)]

    @property
    def decode_tokens_per_s(self) -> float:
        """The first token belongs to the prompt's step; the rest is decoding."""
        return float((self.usage["completion_tokens"] - 1) / (self.events[-1] - self.events[0]))

    @property
    def prefill_tokens_per_s(self) -> float:
        """As a user feels it: the whole way from the request to the first piece of the answer."""
        return float(self.usage["prompt_tokens"] / ((self.events or [self.ended])[0] - self.sent))

    def json(self) -> Any:
        return json.loads(self.body)


Piece = tuple[float, bytes]
"""When, and what."""


class Call(asyncio.Protocol):
    """A request that is on its way; :meth:`leave` hangs up. ``pieces`` are what has come by now."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.sent = 0.0
        self.pieces: list[Piece] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self.sent = time.perf_counter()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.pieces.append((time.perf_counter(), data))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def leave(self) -> None:
        self._transport.abort()


async def call(url: str, body: Mapping[str, Any] | None = None) -> Call:
    """Send a GET, or a POST of ``body``."""
    place = urlsplit(url)
    payload = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{'GET' if body is None else 'POST'} {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    address = str(place.hostname), int(place.port or 80)
    _, sent = await loop.create_connection(lambda: Call(head.encode() + payload), *address)
    return sent


async def finish(call: Call) -> Answer:
    """Wait for the end of the answer, and read it."""
    await call.ended
    answer = Answer(sent=call.sent, ended=call.pieces[-1][0] if call.pieces else time.perf_counter())
    answer.status, chunked, rest = split_head(call.pieces)
    for at, line in lines(unchunked(rest) if chunked else rest):
        answer.body += line
        if line.startswith(b"data: ") and END_OF_STREAM not in line:
            take(answer, json.loads(line[6:]), at)
    return answer


async def ask(url: str, body: Mapping[str, Any] | None = None) -> Answer:
    """Raises RuntimeError unless the server says 200."""
    answer = await finish(await call(url, body))
    if answer.status != 200:
        raise RuntimeError(f"{url}: HTTP {answer.status}: {answer.body[:500]!r}")
    if not answer.usage and answer.body.startswith(b"{"):
        answer.usage = answer.json().get("usage") or {}
    return answer


def take(answer: Answer, event: Mapping[str, Any], at: float) -> None:
    """Note the time of an SSE event that carries text, and the usage of the one that carries it."""
    if event.get("error"):
        raise RuntimeError(f"the stream failed: {event['error']}")
    for choice in event.get("choices", ()):
        text = choice.get("text") or choice.get("delta", {}).get("content") or ""
        if text or choice.get("finish_reason"):
            answer.events.append(at)
            answer.text += text
    answer.usage = event.get("usage") or answer.usage


def split_head(pieces: list[Piece]) -> tuple[int, bool, list[Piece]]:
    """Status, whether the body comes in chunks, and the pieces of the body. Raises RuntimeError without a head."""
    seen = b""
    for index, (at, data) in enumerate(pieces):
        seen += data
        head, found, rest = seen.partition(b"\r\n\r\n")
        if found:
            text = head.decode("latin-1").lower()
            return int(text.split()[1]), "transfer-encoding: chunked" in text, [(at, rest), *pieces[index + 1 :]]
    raise RuntimeError(f"the server hung up before it answered: {seen!r}")


def unchunked(pieces: list[Piece]) -> Iterator[Piece]:
    """The body without the framing of chunks (RFC 9112, section 7.1), each chunk when its last byte had come."""
    rest = b""
    for at, data in pieces:
        rest += data
        while (start := rest.find(b"\r\n")) >= 0:
            size = int(rest[:start].split(b";")[0], 16)
            end = start + 2 + size
            if size == 0 or len(rest) < end + 2:
                break
            yield at, rest[start + 2 : end]
            rest = rest[end + 2 :]
    if not rest.startswith(b"0"):
        raise RuntimeError("the answer ended in the middle of a chunk")


def lines(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Whole lines with their ends, each when it was whole; what is left at the end as it is."""
    rest, last = b"", 0.0
    for last, piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield last, line + b"\n"
    if rest:
        yield last, rest
