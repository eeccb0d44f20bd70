"""An HTTP client that adds as little as it can between the server and the clock: asyncio sockets, one request each."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
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


@dataclass
class Call:
    """A request that is on its way; :meth:`leave` hangs up."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    answer: Answer

    def leave(self) -> None:
        self.writer.transport.abort()


async def call(url: str, body: Mapping[str, Any] | None = None) -> Call:
    """Send a GET, or a POST of ``body``."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port, limit=2**24)
    payload = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{'GET' if body is None else 'POST'} {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    answer = Answer(sent=time.perf_counter())
    writer.write(head.encode() + payload)
    await writer.drain()
    return Call(reader, writer, answer)


async def finish(call: Call) -> Answer:
    """Read the answer to its end."""
    answer = call.answer
    answer.status, chunked = await read_head(call.reader)
    async for line in lines(payload(call.reader, chunked)):
        answer.body += line
        if line.startswith(b"data: ") and END_OF_STREAM not in line:
            take(answer, json.loads(line[6:]))
    answer.ended = time.perf_counter()
    call.writer.close()
    return answer


async def ask(url: str, body: Mapping[str, Any] | None = None) -> Answer:
    """Raises RuntimeError unless the server says 200."""
    answer = await finish(await call(url, body))
    if answer.status != 200:
        raise RuntimeError(f"{url}: HTTP {answer.status}: {answer.body[:500]!r}")
    if not answer.usage and answer.body.startswith(b"{"):
        answer.usage = answer.json().get("usage") or {}
    return answer


def take(answer: Answer, event: Mapping[str, Any]) -> None:
    """Note the time of an SSE event that carries text, and the usage of the one that carries it."""
    if event.get("error"):
        raise RuntimeError(f"the stream failed: {event['error']}")
    for choice in event.get("choices", ()):
        text = choice.get("text") or choice.get("delta", {}).get("content") or ""
        if text or choice.get("finish_reason"):
            answer.events.append(time.perf_counter())
            answer.text += text
    answer.usage = event.get("usage") or answer.usage


async def read_head(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """Status, and whether the body comes in chunks."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    return int(head.split()[1]), "transfer-encoding: chunked" in head


async def payload(reader: asyncio.StreamReader, chunked: bool) -> AsyncIterator[bytes]:
    """The body as it arrives, without the framing of chunks (RFC 9112, section 7.1)."""
    while not chunked and (data := await reader.read(65536)):
        yield data
    while chunked and (size := int((await reader.readline()).split(b";")[0], 16)):
        yield (await reader.readexactly(size + 2))[:-2]


async def lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Whole lines with their ends, as soon as they are whole; what is left at the end as it is."""
    rest = b""
    async for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line + b"\n"
    if rest:
        yield rest
