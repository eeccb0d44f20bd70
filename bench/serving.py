"""What several clients at once feel, beside llama-server from the same llama.cpp tree.

    python -m bench.serving --llama-server BIN [stall] [short] [shared] [clients] [restart] [--blocks N]

stall:   a running stream while a prompt of 4,000 tokens is read: its longest waits, and that prompt's first token.
short:   the first token of a short prompt that comes just after a long one.
shared:  sixteen requests with the same 2,000 tokens before their own 32: until all have their first token.
clients: sixteen clients, and four, each with a prompt of its own (256 tokens in, 128 out): tokens per second.
restart: the first token after 2,000 tokens that the server knew before it was killed, by that of a cold start.

In a block each server runs twice, in the order A B C C B A; a figure is the ratio inside a block. ``--write
docs/benchmarks.md`` replaces that page's table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

from . import crowds, machine, restart
from .facts import vocabulary
from .make_model import LONG, SHAPES, make
from .peers import Server, ingle_server, llama_server
from .ratios import Goal, Line, lines_of, ratios_table
from .report import replace_table

CONTEXT, CONTEXT_OF_SIXTEEN = "16384", "49152"
"""Tokens of the cache. llama-server divides it among its slots where their number was given."""

DEFAULT, SIXTEEN, OLLAMA = "llama-server", "llama-server -np 16", "-np 1 -b 512 -ub 512 (Ollama's)"
FLAGS: Mapping[str, Sequence[str]] = MappingProxyType(
    {DEFAULT: (), SIXTEEN: ("-np", "16", "-c", CONTEXT_OF_SIXTEEN), OLLAMA: ("-np", "1", "-b", "512", "-ub", "512")}
)
"""llama-server's own number of slots is four."""

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Case:
    """Something done to each server. ``goals``: what of its figures is compared, with whom, and with which result."""

    measure: Callable[[Server], Figures]
    goals: Sequence[Goal]

    @property
    def peers(self) -> list[str]:
        return list(dict.fromkeys(goal.peer for goal in self.goals))


CASES: Mapping[str, Case] = MappingProxyType(
    {
        "stall": Case(
            crowds.stall,
            (
                Goal("wait of a running stream while 4,000 tokens are read, p99", "s", DEFAULT, 0.10),
                Goal("first token of those 4,000", "s", DEFAULT, 1.10),
            ),
        ),
        "short": Case(crowds.short_behind_long, (Goal("first token of 32 behind 4,000", "s", DEFAULT, 0.10),)),
        "shared": Case(
            crowds.shared,
            (
                Goal("all first tokens of 16 that share 2,000", "s", DEFAULT, 1 / 3),
                Goal("all first tokens of 16 that share 2,000", "s", SIXTEEN, 1 / 8),
            ),
        ),
        "clients": Case(
            crowds.clients,
            (
                Goal("16 clients, 256 in, 128 out", "tok/s", SIXTEEN, 1.15, at_least=True),
                Goal("16 clients, 256 in, 128 out", "tok/s", OLLAMA, 1.4, at_least=True),
                Goal("4 clients, 256 in, 128 out", "tok/s", DEFAULT, 1.0, at_least=True),
            ),
        ),
    }
)


@contextlib.contextmanager
def servers(model: Path, chosen: argparse.Namespace, peers: Sequence[str]) -> Iterator[list[Server]]:
    """Ours first."""
    words, threads = vocabulary(model), str(chosen.threads)
    with contextlib.ExitStack() as stack:
        ours = ingle_server(model, words, "--threads", threads, "--threads-prefill", threads, "--ctx", CONTEXT)
        found = [stack.enter_context(ours)]
        for name in peers:
            flags = ("-t", threads, "-c", CONTEXT, *FLAGS[name])
            found.append(stack.enter_context(llama_server(chosen.llama_server, model, words, *flags, name=name)))
        yield found


def block(case: Case, sides: Sequence[Server]) -> dict[str, list[Figures]]:
    """Both runs of each side."""
    runs: dict[str, list[Figures]] = {side.name: [] for side in sides}
    for side in (*sides, *reversed(sides)):
        runs[side.name].append(case.measure(side))
    return runs


def compare(name: str, model: Path, chosen: argparse.Namespace) -> Iterator[Line]:
    case = CASES[name]
    blocks = []
    with servers(model, chosen, case.peers) as sides:
        for side in sides:
            side.decode(8, 0)
        for _ in range(chosen.blocks):
            machine.wait_until_quiet()
            blocks.append(block(case, sides))
            print(json.dumps(blocks[-1]), flush=True)
    yield from lines_of(case.goals, blocks, sides[0].name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", help=f"of {', '.join((*CASES, 'restart'))}; all unless given")
    default = os.environ.get("LLAMA_SERVER")
    parser.add_argument("--llama-server", type=Path, default=default, required=default is None)
    parser.add_argument("--shape", choices=SHAPES, default=LONG, help="random weights of this shape")
    parser.add_argument("--type", default="Q8_0", help="its quantization")
    parser.add_argument("--model", type=Path, help="a GGUF file instead, with a window of 8,000 tokens or more")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="where models and raw figures go")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--write", type=Path, help="a page whose table to replace")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    model = chosen.model or make(chosen.folder, chosen.shape, chosen.type)
    found: list[Line] = []
    for name in chosen.case or (*CASES, "restart"):
        if name == "restart":
            with tempfile.TemporaryDirectory() as folder:
                found += restart.lines(model, chosen.threads, CONTEXT, Path(folder))
        else:
            found += compare(name, model, chosen)
    conditions = machine.describe() | {"threads": str(chosen.threads), "model": model.stem}
    (chosen.folder / "serving.json").write_text(
        json.dumps({"conditions": conditions, "lines": [asdict(line) for line in found]}, indent=1), encoding="utf-8"
    )
    print(ratios_table(found, conditions))
    if chosen.write:
        replace_table(chosen.write, "serving", ratios_table(found, conditions))


if __name__ == "__main__":
    main()
