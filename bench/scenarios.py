"""What users feel beside raw speed, each with its bound: PASS or FAIL with the figures.

    python -m bench.scenarios [SCENARIO]... [--model FILE.gguf] [--exact FILE-f32.gguf]

streams: eight answers at once say what each says alone, while the server stays responsive.
prefix:  a conversation that was interrupted by another one finds its prompt again; sixteen share one prefix.
leave:   a client that hangs up while its prompt is read frees the cores; others are not disturbed.
overhead: what a streamed token costs beside the kernels.
sampling: how long it takes to choose a token.
forced:  what computing text that a grammar leaves no choice about in one step wins.
copy:    what computing foretold tokens wins where an answer repeats its prompt, and loses where not.
draft:   what a draft model wins where it is right, and loses where it is wrong.
memory:  what a model takes, beside what was foretold and beside llama-server (--llama-server BIN, optional).
idle:    what a loaded model costs while nobody asks, when the server listens, and how quickly a model is back.
busy:    what is left of the speed beside one and two processes that want the same cores.
import:  what importing and ``--help`` cost.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

from . import (
    busy,
    copying,
    drafting,
    forcing,
    idle,
    imports,
    leave,
    machine,
    memory,
    overhead,
    prefix,
    sampling,
    streams,
)
from .finding import Finding
from .make_model import TINY, make, make_of
from .report import findings_table, replace_table


@dataclass(frozen=True)
class Models:
    """``fast``: a window of 2048 tokens or more; ``exact``: a chat model in f32; ``tiny``: quick at any length.

    folder: where models are made. peer: llama-server, where there is one to compare with.
    """

    fast: Path
    exact: Path
    tiny: Path
    folder: Path
    peer: Path | None


SCENARIOS: Mapping[str, Callable[[Models], list[Finding]]] = MappingProxyType(
    {
        "streams": lambda models: streams.findings(models.exact),
        "prefix": lambda models: prefix.findings(models.fast),
        "leave": lambda models: leave.findings(models.fast),
        "sampling": lambda models: sampling.findings(models.tiny),
        "overhead": lambda models: overhead.findings(models.tiny),
        "forced": lambda models: forcing.findings(models.fast),
        "copy": lambda models: copying.findings(copying_model(models.folder), models.fast),
        "draft": lambda models: list(drafting.findings(models.folder)),
        "memory": lambda models: memory.findings(models.folder, models.peer),
        "idle": lambda models: idle.findings(models.fast),
        "busy": lambda models: busy.findings(models.fast),
        "import": lambda _: imports.findings(),
    }
)


def exact_model(folder: Path) -> Path:
    """``examples/bard`` in f32."""
    from ingle.convert import convert

    target = folder / "bard-f32.gguf"
    if not target.exists():
        convert(Path("examples/bard"), target, "f32")
    return target


def copying_model(folder: Path) -> Path:
    return make_of(folder, copying.COPIES, copying.shape(), "Q8_0", copying.planted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", nargs="*", help=f"of {', '.join(SCENARIOS)}; all unless given")
    parser.add_argument("--model", type=Path, help="unless given: random weights in the shape of SmolLM-135M, Q8_0")
    parser.add_argument("--exact", type=Path, help="unless given: examples/bard in f32")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="where models and raw figures go")
    peer = os.environ.get("LLAMA_SERVER")
    parser.add_argument("--llama-server", type=Path, default=peer, help="to compare the memory with")
    parser.add_argument("--write", type=Path, help="a page whose table to replace")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    models = Models(
        chosen.model or make(chosen.folder, "smollm-135m", "Q8_0"),
        chosen.exact or exact_model(chosen.folder),
        make(chosen.folder, TINY, "Q8_0"),
        chosen.folder,
        chosen.llama_server,
    )
    found, quiet = [], True
    for name in chosen.scenario or SCENARIOS:
        quiet = machine.wait_until_quiet() and quiet
        found += SCENARIOS[name](models)
    for finding in found:
        print(finding)
    conditions = machine.describe() | {"quiet before each scenario": "yes" if quiet else "no"}
    if chosen.write:
        replace_table(chosen.write, "scenarios", findings_table(found, conditions))
    raw = {"conditions": conditions, "findings": [asdict(finding) for finding in found]}
    (chosen.folder / "scenarios.json").write_text(json.dumps(raw, indent=1), encoding="utf-8")
    raise SystemExit(not all(finding.passed for finding in found))


if __name__ == "__main__":
    main()
