"""Decode and prefill speed of ``ingle serve`` beside llama-bench and llama-server.

    python -m bench.speed --llama-bench BIN --llama-server BIN [--model FILE.gguf | --shape NAME --type TYPE]...

The binaries must come from the same llama.cpp tree as the installed llama-cpp-python. Prints one table; with
``--write docs/benchmarks.md`` that page's table is replaced.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from . import machine
from .blocks import Block, run_block
from .facts import context_length, vocabulary
from .make_model import FOR_SCENARIOS, SHAPES, make
from .peers import Contender, LlamaBench, Server, ingle_server, llama_server
from .report import Row, replace_table, table

PREFILL_TOKENS, LONG_PREFILL_TOKENS = 512, 2000  # the window of SmolLM-135M has 2,048
DECODE_TOKENS = 128
DEEP = 1024
CONTEXT = "4096"

TESTS: Mapping[str, Callable[[Contender], float]] = {
    f"decode {DECODE_TOKENS}": lambda side: side.decode(DECODE_TOKENS, 0),
    f"decode {DECODE_TOKENS} after {DEEP}": lambda side: side.decode(DECODE_TOKENS, DEEP),
    f"prefill {PREFILL_TOKENS}": lambda side: side.prefill(PREFILL_TOKENS),
    f"prefill {LONG_PREFILL_TOKENS}": lambda side: side.prefill(LONG_PREFILL_TOKENS),
}


@dataclass(frozen=True)
class Plan:
    """What is measured, on what."""

    llama_bench: Path
    llama_server: Path
    threads: int
    blocks: int
    most_foreign: float


@contextlib.contextmanager
def contenders(model: Path, plan: Plan) -> Iterator[list[Contender]]:
    """All three with the model at hand; the servers idle while another one runs."""
    words = vocabulary(model)
    context = str(min(int(CONTEXT), context_length(model)))
    threads = str(plan.threads)
    # Random weights write one token over and over, which would be foretold: what is compared are the kernels.
    options = ("--threads", threads, "--threads-prefill", threads, "--ctx", context, "--speculate", "off")
    ours = ingle_server(model, words, *options)
    theirs = llama_server(plan.llama_server, model, words, "-t", threads, "-c", context)
    with ours as ingle, theirs as server:
        yield [ingle, LlamaBench(plan.llama_bench, model, plan.threads), server]


def foreign_during(servers: Sequence[psutil.Process], work: Callable[[], None]) -> float:
    before = machine.read(servers)
    work()
    return machine.foreign_share(before, machine.read(servers))


def measure(sides: Sequence[Contender], plan: Plan) -> Iterator[tuple[str, Block]]:
    """Blocks of each test, in turn: one of each, and again."""
    servers = [side.process for side in sides if isinstance(side, Server)]
    for _ in range(plan.blocks):
        for test, work in TESTS.items():
            machine.wait_until_quiet()
            runs = {side.name: functools.partial(work, side) for side in sides}
            yield test, run_block(runs, functools.partial(foreign_during, servers))


def rows_of(model: Path, plan: Plan) -> Iterator[Row]:
    blocks: dict[str, list[Block]] = {test: [] for test in TESTS}
    with contenders(model, plan) as sides:
        for side in sides:
            side.decode(8, 0)
        for test, block in measure(sides, plan):
            blocks[test].append(block)
            print(f"{model.stem}  {test}  {note(block, plan)}", flush=True)
    for test, found in blocks.items():
        yield Row.of(model.stem, test, found, plan.most_foreign)


def note(block: Block, plan: Plan) -> str:
    speeds = "  ".join(f"{name} {block.speed(name):.2f}" for name in block.speeds)
    verdict = "kept" if block.is_quiet(plan.most_foreign) else "rejected"
    return f"{speeds}  others {block.foreign:.1%}  spread {block.spread:.1%}  {verdict}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("llama-bench", "llama-server"):
        default = os.environ.get(name.upper().replace("-", "_"))
        parser.add_argument(f"--{name}", type=Path, default=default, required=default is None)
    parser.add_argument("--model", type=Path, action="append", default=[], help="a GGUF file; may be repeated")
    parser.add_argument(
        "--shape", choices=SHAPES, action="append", default=[], help="make a random model of this shape"
    )
    parser.add_argument("--type", action="append", default=[], help="quantization of the shapes")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="where models and raw figures go")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--most-foreign", type=float, default=machine.MOST_FOREIGN, help="reject noisier blocks")
    parser.add_argument("--write", type=Path, help="a page whose table to replace")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    plan = Plan(chosen.llama_bench, chosen.llama_server, chosen.threads, chosen.blocks, chosen.most_foreign)
    types = chosen.type or ["Q4_K_M", "Q8_0", "Q4_0"]
    shapes = chosen.shape or ([] if chosen.model else [shape for shape in SHAPES if shape not in FOR_SCENARIOS])
    made = [make(chosen.folder, shape, kind) for shape in shapes for kind in types]
    rows = [row for model in [*chosen.model, *made] for row in rows_of(model, plan)]
    conditions = machine.describe() | {"threads": str(plan.threads)}
    raw = {"conditions": conditions, "rows": [asdict(row) for row in rows]}
    (chosen.folder / "speed.json").write_text(json.dumps(raw, indent=1), encoding="utf-8")
    print(table(rows, conditions))
    if chosen.write:
        replace_table(chosen.write, "speed", table(rows, conditions))


if __name__ == "__main__":
    main()
