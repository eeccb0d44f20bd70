"""The conformance sweep: every tiny checkpoint that transformers has given its answer for, whatever it is kept as.

A case is a model of tests/sweep/ (decoders), tests/encoders/ (encoders, encoder-decoders, heads) or tests/checkpoints/
(whole checkpoints, with their own tokenizers). ``docs/models.md`` is the table of them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import encoders
import numpy as np
import sweeping
from ingle.convert import heads
from ingle.convert.families import class_name, find
from ingle.convert.gguf import GGUF, TensorPlan
from ingle.runtime.llama.model import NativeModel
from ingle.runtime.tasks.encoder import Encoder
from llama_runs import last_logits

TESTS = Path(__file__).parent
CHECKPOINTS, GOLDEN = TESTS / "checkpoints", TESTS / "golden"
Pair = tuple[np.ndarray, np.ndarray]
LOGITS, STATES, HEAD, SENTENCE = (
    "next-token logits",
    "states of all tokens",
    "outputs of the head",
    "sentence embedding",
)


@dataclass(frozen=True)
class Case:
    """write: makes the checkpoint in a folder, with config.json as it is or as another. pairs: what we and what
    transformers computed, from a converted file."""

    name: str
    config: Mapping[str, Any]
    older: Mapping[str, Any]
    compared: str
    write: Callable[[Path, Mapping[str, Any]], Path]
    pairs: Callable[[Path], list[Pair]]

    @property
    def class_name(self) -> str:
        return class_name(self.config)

    @property
    def arch(self) -> str:
        return find(self.config).arch

    def older_config(self) -> dict[str, Any]:
        """Its config.json as transformers 4 wrote it."""
        return sweeping.older_config({"config": self.config, "older": self.older})

    def error(self, path: Path) -> float:
        """The largest difference of any value, over the span of the values that transformers gave."""
        pairs = self.pairs(path)
        assert all(ours.shape == theirs.shape for ours, theirs in pairs)
        span = max(float(np.ptp(theirs) if theirs.size > 1 else np.abs(theirs).max()) for _, theirs in pairs)
        assert span > 0.1, "values that are all alike would prove nothing"
        return max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs) / span


def _swept(name: str) -> Case:
    entry = sweeping.load(name)

    def write(folder: Path, config: Mapping[str, Any]) -> Path:
        return sweeping.write_checkpoint(folder / name, entry, config)

    return Case(name, entry["config"], entry.get("older", {}), LOGITS, write, _next_tokens(entry["prompts"]))


def _encoded(name: str) -> Case:
    recipe = encoders.recipe(name)
    golden = recipe["golden"]

    def write(folder: Path, config: Mapping[str, Any]) -> Path:
        return encoders.write(folder / name, {**recipe, "config": config})

    def pairs(path: Path) -> list[Pair]:
        if "later" in golden[0]:
            return [(last_logits(path, case["ids"], case["later"]), np.array(case["logits"])) for case in golden]
        with Encoder(path, threads=1) as encoder:
            return [encoders.both(encoder, case) for case in golden]

    return Case(name, recipe["config"], recipe.get("older", {}), _compared(golden[0]), write, pairs)


def _compared(golden: Mapping[str, Any]) -> str:
    if "later" in golden:
        return LOGITS
    return STATES if "states" in golden else SENTENCE if "embedding" in golden else HEAD


def _kept(name: str) -> Case:
    config = json.loads((CHECKPOINTS / name / "config.json").read_text())
    prompts = json.loads((GOLDEN / f"{name}.json").read_text())["prompts"]

    def write(folder: Path, config: Mapping[str, Any]) -> Path:
        copy = shutil.copytree(CHECKPOINTS / name, folder / name)
        (copy / "config.json").write_text(json.dumps(config))
        return copy

    return Case(name, config, {}, LOGITS, write, _next_tokens(prompts))


def _next_tokens(prompts: Iterable[Mapping[str, Any]]) -> Callable[[Path], list[Pair]]:
    def pairs(path: Path) -> list[Pair]:
        model = NativeModel(path)
        found = [(sweeping.last_logits(model, prompt), np.array(prompt["logits"])) for prompt in prompts]
        model.close()
        return found

    return pairs


CASES: Mapping[str, Case] = {
    **{f"sweep-{name}": _swept(name) for name in sweeping.NAMES},
    **{f"encoders-{name}": _encoded(name) for name in encoders.NAMES},
    **{f"checkpoints-{path.name}": _kept(path.name) for path in sorted(CHECKPOINTS.iterdir())},
}
"""All cases, by where they are kept and their name there."""


def by_class() -> dict[str, list[Case]]:
    """The cases of each class of transformers, in alphabetical order."""
    classes = sorted({case.class_name for case in CASES.values()}, key=str.lower)
    return {name: [case for case in CASES.values() if case.class_name == name] for name in classes}


def task(name: str) -> str:
    """What a class is for: the task of its head, or what a model without one gives."""
    head = heads.find(name)
    if head is not None:
        return head.task.replace("-", " ")
    return "states" if name.endswith("Model") and not name.endswith("LMHeadModel") else "text generation"


def plans(file: GGUF) -> list[TensorPlan]:
    """The tensors of a file, to be written again."""

    def again(name: str) -> Callable[[], Iterator[Any]]:
        return lambda: iter([file.tensor(name)])

    return [TensorPlan(name, info.shape, info.type, again(name)) for name, info in file.tensors.items()]
