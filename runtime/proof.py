"""The proof of a conversion, both halves, as it is written into the file, kept with the model, and shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..convert.gguf import Value
from ..convert.pipeline import PROOF_KEY
from ..convert.progress import Progress, silent

Proof = Mapping[str, Any]
Plain = Callable[[], AbstractContextManager[Path]]
COUNTED = {
    "strings": "the tokens of {:,} texts",
    "pairs": "of {:,} pairs of texts",
    "renderings": "{:,} rendered conversations",
    "prompts": "the logits of {:,} prompts",
}


def prove(
    checkpoint: Path,
    file: Path,
    progress: Progress = silent,
    *,
    whatever_size: bool = False,
    plain: Plain | None = None,
) -> Proof:
    """Hold ``file`` to ``checkpoint``: tokens, chat templates, and logits (of a large model if ``whatever_size``).

    plain: of a quantized file, gives one of the same conversion that is not. Quantizing may move logits as far as a
    fault would, so they are compared there; tokens and templates are those of ``file`` itself.

    Raises:
        VerificationFailed: they differ, or llama.cpp cannot load the file or dies of it.
        BadCheckpoint, BadGGUF: one of the two cannot be read at all.
    """
    from .logits import Logits, not_compared, prove_logits
    from .verify import prove as prove_texts

    texts = asdict(prove_texts(checkpoint, file, progress))
    if plain is None:
        return {**texts, **asdict(prove_logits(checkpoint, file, whatever_size=whatever_size))}
    if reason := not_compared(checkpoint, whatever_size=whatever_size):
        return {**texts, **asdict(Logits(not_compared=reason))}
    with plain() as unquantized:
        return {**texts, **asdict(prove_logits(checkpoint, unquantized, whatever_size=whatever_size))}


def of(metadata: Mapping[str, Value]) -> Proof | None:
    """The proof in a file; None where there is none."""
    try:
        found = json.loads(str(metadata.get(PROOF_KEY, "null")))
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def described(proof: Proof) -> str:
    """``the tokens of 4,000 texts, 76 rendered conversations, the logits of 8 prompts (within 1e-06)``."""
    parts = [words.format(proof[key]) for key, words in COUNTED.items() if proof.get(key)]
    if proof.get("prompts"):
        parts[-1] += f" (within {proof['difference']:.1g} of their spread)"
    elif proof.get("not_compared"):
        parts.append(f"no logits: {proof['not_compared']}")
    return ", ".join(parts) or "nothing"
