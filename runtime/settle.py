"""What only a trial can tell about a vocabulary, found out before the file is written.

llama.cpp's tokenizer is run, in a child process, on a file that has nothing but the vocabulary. Where its way of
cutting text has no name that we know, all names are tried. Where it is recognised and still differs for some text, the
file gets the tokenizer.json, and our runtime tokenizes with that. What it cannot be made to agree with is refused.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from ..convert import gguf, tokenizer
from ..convert.errors import VerificationFailed
from ..convert.gguf import Value
from ..convert.progress import Progress, silent
from ..convert.report import Item
from ..convert.vocabulary import DOCUMENT_KEY, LIBRARY_KEY, VERDICT_KEY, Vocabulary
from . import comparison, confined
from .comparison import Difference, Found
from .truth import truth

EXACT = "exact"
MOST_DIFFERING = 0.1
"""More than this share of all texts is no approximation: then something is wrong that we do not understand."""
MODEL: dict[str, Value] = {
    "general.architecture": "llama",
    "llama.context_length": 64,
    "llama.embedding_length": 64,
    "llama.block_count": 1,
    "llama.feed_forward_length": 64,
    "llama.attention.head_count": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}
"""The least that llama.cpp must know to load a file without weights."""


def settle(checkpoint: Path, vocabulary: Vocabulary, progress: Progress = silent) -> Vocabulary:
    """``vocabulary`` with all that was undecided, and with a verdict.

    Raises:
        VerificationFailed: llama.cpp has no way to tokenize like the checkpoint; the message shows the first
            differences.
    """
    if vocabulary.undecided:
        vocabulary = _with_found_pre(checkpoint, vocabulary, progress)
    found = _tried(checkpoint, vocabulary, most=None)
    if not found.differing:
        return _with_verdict(vocabulary, EXACT)
    if not vocabulary.embeds:
        if not vocabulary.described or found.differing > MOST_DIFFERING * found.compared:
            raise _refusal(found)
        vocabulary = vocabulary.with_document(tokenizer.document(checkpoint))
    what = f"llama.cpp alone gives other tokens for {found.differing:,} of {found.compared:,} texts"
    item = Item("tokenizer", "warn", f"{what}; ingle uses the tokenizer.json that the file holds")
    return _with_verdict(replace(vocabulary, items=(*vocabulary.items, item)), f"known: {what}")


def serve() -> None:
    """The child: compares the file and the checkpoint that its arguments name."""
    most = int(sys.argv[3]) or None
    confined.report(lambda progress: asdict(_compare(Path(sys.argv[2]), Path(sys.argv[1]), most)))


def _with_found_pre(checkpoint: Path, vocabulary: Vocabulary, progress: Progress) -> Vocabulary:
    """The first name with which llama.cpp agrees on all texts; where none does, the one that agrees longest may do for
    a vocabulary that our runtime does not leave to llama.cpp."""
    best: tuple[int, Vocabulary] | None = None
    for done, name in enumerate(vocabulary.pre_candidates):
        progress("pre-tokenizers", done, len(vocabulary.pre_candidates))
        named = vocabulary.with_pre(name)
        try:
            found = _tried(checkpoint, named, most=1)
        except VerificationFailed:  # llama.cpp may die of a wrong name
            continue
        if not found.differing:
            items = [item for item in named.items if item.name != "pre-tokenizer"]
            tried = Item("pre-tokenizer", "ok", f"{name}, found by trying {done + 1}")
            return replace(named, items=(*items, tried))
        best = max(best or (0, named), (found.compared, named), key=lambda entry: entry[0])
    if best is None or not vocabulary.embeds:
        raise _refusal(_tried(checkpoint, best[1], most=comparison.SHOWN) if best else None)
    return best[1]


def _tried(checkpoint: Path, vocabulary: Vocabulary, most: int | None) -> Found:
    native = {key: value for key, value in vocabulary.metadata.items() if key not in (DOCUMENT_KEY, LIBRARY_KEY)}
    with tempfile.TemporaryDirectory(prefix="ingle-") as folder:
        file = Path(folder) / "vocabulary.gguf"
        gguf.write(file, {**MODEL, **native}, [])
        found = confined.run(f"{__name__}:serve", file, str(checkpoint), str(most or 0))
    return Found(found["compared"], found["differing"], tuple(_differences(found["first"])))


def _differences(events: list[dict[str, object]]) -> Iterator[Difference]:
    for event in events:
        made = Difference(**event)  # type: ignore[arg-type]  # as asdict wrote it
        yield replace(made, theirs=tuple(made.theirs), ours=tuple(made.ours))


def _compare(checkpoint: Path, file: Path, most: int | None) -> Found:
    own, metadata = truth(checkpoint), gguf.read(file).metadata
    with comparison.open_vocabulary(file) as vocab:
        texts = comparison.texts_for(vocab, metadata, own.parses_special)
        return comparison.compare(texts, comparison.native_modes(own, vocab), most=most)


def _with_verdict(vocabulary: Vocabulary, verdict: str) -> Vocabulary:
    return replace(vocabulary, metadata={**vocabulary.metadata, VERDICT_KEY: verdict})


def _refusal(found: Found | None) -> VerificationFailed:
    shown = "\n".join(map(str, found.first)) if found else "llama.cpp could not load any of them"
    return VerificationFailed(
        f"llama.cpp has no way to tokenize like this checkpoint; the nearest one differs:\n{shown}",
        hint="please report the model, with its tokenizer.json",
    )
