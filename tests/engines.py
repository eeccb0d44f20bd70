"""What the tests of the engine share: its two homes, prompts, golden answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ingle.runtime.engine.engine import EngineLike
from ingle.runtime.engine.stream import Stream
from ingle.runtime.options import LoadOptions
from ingle.runtime.request import Sampling

GREEDY = Sampling(temperature=0)
PROMPT = "<|im_start|>user\nWho art thou?<|im_end|>\n<|im_start|>assistant\n"
GOLDEN = json.loads((Path(__file__).parent / "golden" / "bard_greedy.json").read_text())
WINDOW = 1024

Home = Callable[[Path, LoadOptions], EngineLike]


def ids(stream: Stream) -> list[int]:
    return [token for delta in stream for token in delta.tokens]


def long_prompt(length: int, start: int = 300) -> tuple[int, ...]:
    return tuple(start + k % 3000 for k in range(length))


def resident(path: Path) -> int:
    """Bytes of a mapped file in the memory of this process."""
    block = next(block for block in Path("/proc/self/smaps").read_text().split("VmFlags") if str(path) in block)
    return int(next(line for line in block.splitlines() if line.startswith("Rss:")).split()[1]) * 1024
