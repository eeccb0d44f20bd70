"""docs/models.md: which classes are converted, how exactly, and which are refused, and why."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from conformance import by_class, task
from ingle.convert.families.refused import REASONS

PAGE = Path(__file__).parent.parent / "docs" / "models.md"
# What is claimed for a class is the next of these above half as much again as was measured.
STEPS = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3)
MARGIN = 1.5
HEAD = """\
# Models

Written by `tests/reference/write_models.py`; `tests/test_convert_sweep.py` holds it to be true and complete.

## Converted

A tiny checkpoint of each of these {count} classes, saved by transformers 5 with random weights, is converted to f32 and
computed by llama.cpp, and what comes out is compared with what transformers computes of it. `within` bounds the largest
difference of any value, over the span of the values (f32 cache, no flash attention); most of what is above 1e-4 is
ggml's GELU, the tanh form looked up in a table of f16. The same checkpoint with a config.json in the spelling of
transformers 4 must give the same file.

A class that is not in the table is converted all the same when it is a decoder of it without a head
(`Qwen2Model`), or with `ForSequenceClassification` or `ForTokenClassification` in place of `ForCausalLM`.

`SmolVLMForConditionalGeneration`, `Idefics3ForConditionalGeneration` and `Qwen2_5_VLForConditionalGeneration` are held
to transformers with pictures, as is the vision part of Gemma 3: [vision.md](vision.md).

| class | GGUF | for | compared | within |
| --- | --- | --- | --- | --- |
"""
MIDDLE = """
## Refused

A class that nobody described is refused by name. Of these the reason is known, too:

| class | why |
| --- | --- |
"""


def page(claimed: Mapping[str, float]) -> str:
    """The page, for what is claimed of each class."""
    rows = (
        f"| {name} | {cases[0].arch} | {task(name)} | {', '.join(sorted({case.compared for case in cases}))} "
        f"| {claimed[name]:.0e} |\n"
        for name, cases in by_class().items()
    )
    refused = (f"| {stem} | {why} |\n" for stem, why in sorted(REASONS.items(), key=lambda item: item[0].lower()))
    return HEAD.format(count=len(by_class())) + "".join(rows) + MIDDLE + "".join(refused)


def claimed() -> dict[str, float]:
    """What the page claims of each class."""
    rows = (line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| "))
    return {row[0].removeprefix("| "): float(row[4].removesuffix(" |")) for row in rows if row[-1][:1].isdigit()}


def claim(measured: float) -> float:
    """What may be claimed, having measured this much."""
    return next(step for step in STEPS if step >= MARGIN * measured)
