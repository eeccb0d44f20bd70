"""Eight streams at once through the official client: does each say what it says alone, and does the server answer?"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from openai import AsyncOpenAI

from .client import ask
from .facts import vocabulary
from .finding import Finding
from .peers import ingle_server

STREAMS = 8
ANSWER_TOKENS = 96
TEMPERATURE = 0.8
MODELS_BOUND_S = 0.05
TIE = 1e-3
POLL_S = 0.02
TOPICS = ("the king", "thy sword", "the sea", "my lady", "a ghost", "the war", "this letter", "the moon")


@dataclass(frozen=True)
class Told:
    """An answer token by token: what was drawn, and the likeliest alternatives with their logprobs."""

    text: str
    finish: str | None
    tokens: tuple[str, ...]
    tops: tuple[Mapping[str, float], ...]


def findings(model: Path) -> list[Finding]:
    options = ("--kv-type", "f32", "--parallel", str(STREAMS), "--threads", "2")
    with ingle_server(model, vocabulary(model), *options) as server:
        alone = asyncio.run(tell(server.url, server.model, together=False))
        with Poll(f"{server.url}/v1/models") as poll:
            crowd = asyncio.run(tell(server.url, server.model, together=True))
    same = sum(one.tokens == other.tokens for one, other in zip(alone, crowd, strict=True))
    wrong = sum(not agree(one, other) for one, other in zip(alone, crowd, strict=True))
    return [
        Finding("streams that finished", sum(told.finish is not None for told in crowd), STREAMS, at_least=True),
        Finding(
            "streams that differ from themselves alone by more than a tie", wrong, 0, detail=f"{same} are identical"
        ),
        Finding("/v1/models meanwhile, slowest", max(poll.seconds), MODELS_BOUND_S, "s", detail=poll.summary()),
    ]


async def tell(url: str, model: str, together: bool) -> list[Told]:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        stories = [story(client, model, index, topic) for index, topic in enumerate(TOPICS)]
        return list(await asyncio.gather(*stories)) if together else [await each for each in stories]


async def story(client: AsyncOpenAI, model: str, seed: int, topic: str) -> Told:
    stream = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": f"What say you of {topic}?"}],
        temperature=TEMPERATURE,
        seed=seed,
        max_tokens=ANSWER_TOKENS,
        logprobs=True,
        top_logprobs=10,
        stream=True,
    )
    text, finish, drawn = "", None, []
    async for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
            drawn += (choice.logprobs and choice.logprobs.content) or []
    tops = tuple({top.token: top.logprob for top in token.top_logprobs} for token in drawn)
    return Told(text, finish, tuple(token.token for token in drawn), tops)


def agree(one: Told, other: Told) -> bool:
    """Equal, or equal up to a token before which both had the same distribution: a draw on the edge between two."""
    parted = next((i for i, pair in enumerate(zip(one.tokens, other.tokens, strict=False)) if pair[0] != pair[1]), None)
    if parted is None:
        return one.text == other.text
    mine, theirs = one.tops[parted], other.tops[parted]
    common = mine.keys() & theirs.keys()
    return len(common) >= len(mine) - 1 and all(abs(mine[token] - theirs[token]) <= TIE for token in common)


class Poll:
    """Asks ``url`` every :data:`POLL_S` from a thread of its own until the block ends."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.seconds: list[float] = []

    def __enter__(self) -> Poll:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def summary(self) -> str:
        return f"median {median(self.seconds) * 1e3:.1f} ms of {len(self.seconds)}"

    def _run(self) -> None:
        while not self._over.wait(POLL_S):
            answer = asyncio.run(ask(self._url))
            self.seconds.append(answer.ended - answer.sent)
