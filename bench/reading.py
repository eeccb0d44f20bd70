"""Texts embedded and pairs ranked per second, beside llama-server, sentence-transformers and onnxruntime's int8.

    python -m bench.reading CHECKPOINT --llama-server BIN [--python VENV/bin/python] [--type Q8_0 ...]

CHECKPOINT is the folder of a BERT for sentence-transformers, all-MiniLM-L6-v2 for one; of its layers and a random
classifier the ranker is made. --python is an interpreter with sentence-transformers, onnx and onnxruntime. The texts
have 16 to 256 tokens, short ones more often than long ones. Prints one table; with ``--write docs/benchmarks.md`` that
page's table is replaced.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import os
import random
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ingle.convert import convert
from ingle.convert.checkpoint import read_tensors
from ingle.quantize import quantize
from numpy.typing import NDArray

from . import machine, reading_peers
from .blocks import Block, Ratio, median_speed, ratio, run_block
from .peers import ingle_server, llama_server
from .reading_peers import EMBED, RERANK, Client, Program, Work, export
from .report import condition_line, line, replace_table, show
from .speed import foreign_during

OURS = "ingle"
SERVE = "ingle serve"
SHORTEST, LONGEST = 16, 256
UNITS: Mapping[str, str] = {EMBED: "texts/s", RERANK: "pairs/s"}


@dataclass(frozen=True)
class Plan:
    """What is measured, beside whom."""

    folder: Path
    checkpoint: Path
    llama_server: Path | None
    python: str | None
    threads: int
    texts: int
    blocks: int
    tuned: Sequence[str]


@dataclass(frozen=True)
class Line:
    """A contender's line of the table: speed, how many times faster ours is, and how true its results are."""

    kind: str
    type: str
    name: str
    speed: float
    ours: Ratio | None
    served: Ratio | None
    likeness: float
    blocks: str


def words(checkpoint: Path) -> list[str]:
    """Words of one token each."""
    vocab = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    return sorted(word for word in vocab if word.isascii() and word.isalpha() and len(word) > 2)


def texts(vocabulary: Sequence[str], count: int) -> list[str]:
    """Of ``SHORTEST`` to ``LONGEST`` tokens with the two around them; the logarithm of the length is uniform."""
    draw = random.Random(0)
    span = math.log(LONGEST / SHORTEST)
    lengths = [round(SHORTEST * math.exp(draw.random() * span)) - 2 for _ in range(count)]
    return [" ".join(draw.choices(vocabulary, k=length)) for length in lengths]


def ranker(checkpoint: Path, out: Path) -> Path:
    """A cross-encoder: the layers of ``checkpoint``, its pooler, and a random classifier of one output."""
    if out.exists():
        return out
    out.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(checkpoint / name, out)
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    config |= {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"},
               "label2id": {"LABEL_0": 0}}  # fmt: skip
    (out / "config.json").write_text(json.dumps(config), encoding="utf-8")
    draw = np.random.default_rng(0)
    tensors = {f"bert.{name}": np.asarray(one.values, np.float32) for name, one in read_tensors(checkpoint).items()
               if one.dtype == "F32"}  # fmt: skip
    tensors["classifier.weight"] = draw.standard_normal((1, config["hidden_size"]), np.float32)
    tensors["classifier.bias"] = np.zeros(1, np.float32)
    write_tensors(out / "model.safetensors", tensors)
    return out


def write_tensors(path: Path, tensors: Mapping[str, NDArray[np.float32]]) -> None:
    header, end = {}, 0
    for name, values in tensors.items():
        start, end = end, end + values.nbytes
        header[name] = {"dtype": "F32", "shape": values.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for values in tensors.values():
            out.write(np.ascontiguousarray(values).tobytes())


def model(checkpoint: Path, folder: Path, kind: str) -> Path:
    """The checkpoint as a GGUF file of that type, made once."""
    whole = folder / f"{checkpoint.name}-F32.gguf"
    if not whole.exists():
        convert(checkpoint, whole, "f32")
    path = folder / f"{checkpoint.name}-{kind}.gguf"
    if not path.exists():
        quantize(whole, path, kind)
    return path


@contextlib.contextmanager
def contenders(plan: Plan, work: Work, checkpoint: Path, file: Path) -> Iterator[dict[str, Program | Client]]:
    """All of them with the model in memory; those that are not at work idle."""
    threads = str(plan.threads)
    with contextlib.ExitStack() as stack:
        sides: dict[str, Program | Client] = {}

        def program(name: str, python: str, code: str, path: Path) -> None:
            own = Work(
                work.kind, work.texts, work.query, plan.folder / f"{work.kind}-{len(sides)}.json", work.tokenizer
            )
            sides[name] = side = Program(python, code, path, own.write(), plan.threads)
            stack.callback(side.close)

        program(OURS, sys.executable, reading_peers.INGLE, file)
        served = stack.enter_context(ingle_server(file, 1, "--threads", threads))
        sides[SERVE] = Client(served, work)
        if plan.llama_server:
            kind = "--embedding" if work.kind == EMBED else "--rerank"
            tuned = {"llama-server": (), "llama-server, tuned": plan.tuned}
            for name, options in tuned.items():
                theirs = llama_server(plan.llama_server, file, 1, kind, "-t", threads, *options)
                sides[name] = Client(stack.enter_context(theirs), work)
        if plan.python:
            program("sentence-transformers, f32", plan.python, reading_peers.SENTENCE_TRANSFORMERS, checkpoint)
            graph = export(plan.python, checkpoint, plan.folder / f"{checkpoint.name}-int8.onnx", work.kind)
            program("onnxruntime, int8", plan.python, reading_peers.ONNXRUNTIME, graph)
        yield sides


def measure(plan: Plan, work: Work, checkpoint: Path, file: Path, kind: str, truth: NDArray[np.float32]) -> list[Line]:
    blocks: list[Block] = []
    with contenders(plan, work, checkpoint, file) as sides:
        for side in sides.values():
            side.measure()
        processes = [side.server.process if isinstance(side, Client) else side.process for side in sides.values()]
        for _ in range(plan.blocks):
            machine.wait_until_quiet()
            runs = {name: side.measure for name, side in sides.items()}
            blocks.append(run_block(runs, functools.partial(foreign_during, processes)))
            print(f"{work.kind}  {kind}  {note_of(blocks[-1])}", flush=True)
        likeness = {name: like(side.found, truth) for name, side in sides.items()}
    quiet = [block for block in blocks if block.is_quiet(machine.MOST_FOREIGN)] or blocks
    kept = f"{sum(block.is_quiet(machine.MOST_FOREIGN) for block in blocks)} of {len(blocks)}"
    return [
        Line(
            work.kind,
            kind,
            name,
            median_speed(quiet, name),
            ratio(quiet, OURS, name) if name != OURS else None,
            ratio(quiet, SERVE, name) if name not in (OURS, SERVE) else None,
            likeness[name],
            kept,
        )
        for name in sides
    ]


def note_of(block: Block) -> str:
    speeds = "  ".join(f"{name} {block.speed(name):.1f}" for name in block.speeds)
    return f"{speeds}  others {block.foreign:.1%}  spread {block.spread:.1%}"


def like(found: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """The least cosine of the vectors; of scores, which the servers bring to other scales, the rank correlation."""
    if truth.ndim == 2 and truth.shape[1] > 1:
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(truth, axis=1)
        return float(((found * truth).sum(1) / lengths).min())
    ranks = np.array([np.argsort(np.argsort(one.ravel())) for one in (found, truth)])
    return float(np.corrcoef(ranks)[0, 1])


def exact(plan: Plan, work: Work, checkpoint: Path) -> NDArray[np.float32]:
    """What the f32 file gives, which the tests hold to transformers."""
    side = Program(sys.executable, reading_peers.INGLE, model(checkpoint, plan.folder, "F32"), work, plan.threads)
    try:
        side.measure()
        return side.found
    finally:
        side.close()


def table(lines: Sequence[Line], conditions: Mapping[str, str]) -> str:
    head = [
        "task",
        "type",
        "who",
        "a second",
        "ingle is faster by",
        "ingle serve by",
        "least cosine, or rank",
        "blocks",
    ]
    rows = [condition_line(conditions), "", line(head), line(["---"] * len(head))]
    for one in lines:
        ratios = [show(each) if each else "" for each in (one.ours, one.served)]
        rows.append(line([one.kind, one.type, one.name, f"{one.speed:.1f} {UNITS[one.kind]}", *ratios,
                          f"{one.likeness:.4f}", one.blocks]))  # fmt: skip
    return "\n".join(rows) + "\n"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--llama-server", type=Path, default=os.environ.get("LLAMA_SERVER"))
    parser.add_argument("--python", help="the interpreter of a venv that sentence-transformers and onnxruntime run in")
    parser.add_argument("--type", nargs="+", default=["Q8_0"], help="types of the files")
    parser.add_argument("--task", nargs="+", choices=UNITS, default=list(UNITS))
    parser.add_argument("--tuned", default="-np 16 -c 8192", help="options of the tuned llama-server")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="where models go")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--write", type=Path, help="a page whose table to replace")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    plan = Plan(chosen.folder, chosen.checkpoint, chosen.llama_server, chosen.python, chosen.threads, chosen.texts,
                chosen.blocks, chosen.tuned.split())  # fmt: skip
    vocabulary = words(plan.checkpoint)
    folders = {EMBED: plan.checkpoint, RERANK: ranker(plan.checkpoint, plan.folder / "ranker")}
    lines = []
    for task in chosen.task:
        query = " ".join(random.Random(1).choices(vocabulary, k=10))
        given = Work(task, texts(vocabulary, plan.texts), query, plan.folder / f"{task}.json",
                     folders[task].absolute() / "tokenizer.json").write()  # fmt: skip
        truth = exact(plan, given, folders[task])
        for kind in chosen.type:
            file = model(folders[task], plan.folder, kind)
            lines += measure(plan, given, folders[task], file, kind, truth)
    conditions = machine.describe() | {"threads": str(plan.threads), "texts": str(plan.texts)}
    print(table(lines, conditions))
    if chosen.write:
        replace_table(chosen.write, "reading", table(lines, conditions))


if __name__ == "__main__":
    main()
