"""The proof: a checkpoint and the GGUF made from it, side by side.

The checkpoint's own tokenizer and the one that our runtime has for the file must give the same ids for thousands of
strings, and the chat templates in the file must render as transformers renders the checkpoint's. It runs in a child
process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..convert import chat_template, gguf
from ..convert.errors import TemplateError, VerificationFailed
from ..convert.gguf import Value
from ..convert.progress import Progress, silent
from . import comparison, confined, corpus
from .chat import Template
from .chat.conversation import special_tokens
from .truth import truth

Messages = list[dict[str, Any]]
Tools = list[Mapping[str, Any]] | None
Case = tuple[str, Messages, Tools, bool]
Render = Callable[[str, Messages, Tools, bool], str | None]
"""A template's name, messages, tools and whether to open an answer -> text; None when the template refuses."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found equal: strings (each with and without added special tokens, and as plain text), renderings of chat
    templates, of which ``refusals`` were refused by the template in both, and pairs of strings (ids, segment ids and
    offsets), where the file can have them."""

    strings: int
    renderings: int
    refusals: int
    pairs: int = 0


def prove(checkpoint: Path, file: Path, progress: Progress = silent) -> Verdict:
    """Compare the tokenizer and chat templates of ``checkpoint`` with those of the GGUF ``file``, whatever its name.

    Raises:
        VerificationFailed: they differ (the message shows where), or llama.cpp cannot load the file or dies of it.
        BadCheckpoint, BadGGUF: one of the two cannot be read at all.
    """
    return Verdict(**confined.run(f"{__name__}:serve", file, str(checkpoint), progress=progress))


def serve() -> None:
    """The child: compares the file and the checkpoint that its arguments name."""
    confined.report(lambda progress: asdict(compare(Path(sys.argv[2]), Path(sys.argv[1]), progress)))


def compare(checkpoint: Path, file: Path, progress: Progress) -> Verdict:
    """The comparison itself, in this process."""
    metadata = gguf.read(file).metadata
    strings, pairs = _compare_tokens(checkpoint, file, metadata, progress)
    renderings, refusals = _compare_templates(checkpoint, metadata)
    return Verdict(strings, renderings, refusals, pairs)


def _compare_tokens(checkpoint: Path, file: Path, metadata: Mapping[str, Value], progress: Progress) -> tuple[int, int]:
    """Returns how many strings and pairs were compared."""
    own = truth(checkpoint)
    with comparison.open_vocabulary(file) as vocab:
        texts = comparison.texts_for(vocab, metadata, own.parses_special)
        found = comparison.compare(texts, comparison.modes(own, vocab), progress)
        _require_none(found)
        pairs = comparison.compare_pairs(texts, own, vocab) if vocab.embedded else comparison.Found(0, 0, ())
        _require_none(pairs)
    return found.compared, pairs.compared


def _require_none(found: comparison.Found) -> None:
    if found.differing:
        raise VerificationFailed(
            "\n".join(map(str, found.first)),
            hint="the file would read text in another way than the model was trained to; it is not kept",
        )


def _compare_templates(checkpoint: Path, metadata: Mapping[str, Value]) -> tuple[int, int]:
    """Returns how many renderings were compared, and how many of them were refusals."""
    sources = chat_template.from_metadata(metadata)
    if not sources:
        return 0, 0
    theirs, ours = _their_renderer(checkpoint), _our_renderer(sources, special_tokens(metadata))
    cases = [
        (name, messages, tools, generation)
        for name in sources
        for messages in corpus.CONVERSATIONS
        for tools in (None, list(corpus.TOOLS))
        for generation in (True, False)
    ]
    refusals = sum(_compare_rendering(theirs, ours, case) for case in cases)
    return len(cases), refusals


def _compare_rendering(theirs: Render, ours: Render, case: Case) -> bool:
    """Whether both refused. A template may print the time, so one difference gets a second look."""
    want, got = theirs(*case), ours(*case)
    if want != got:
        want, got = theirs(*case), ours(*case)
    if want != got:
        name, messages, _tools, generation = case
        raise VerificationFailed(
            f"the chat template {name!r} renders differently (add_generation_prompt {generation}) for {messages}\n"
            f"  transformers: {_shown(want)}\n  ingle:        {_shown(got)}",
            hint="the model would be asked in another form than it was trained on; please report it",
        )
    return want is None


def _our_renderer(sources: Mapping[str, str], special: Mapping[str, str]) -> Render:
    templates = {name: Template(source, special) for name, source in sources.items()}

    def render(name: str, messages: Messages, tools: Tools, generation: bool) -> str | None:
        try:
            return templates[name].render(messages, add_generation_prompt=generation, tools=tools)
        except TemplateError:
            return None

    return render


def _their_renderer(checkpoint: Path) -> Render:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    has_json = (checkpoint / "tokenizer.json").is_file()
    tokenizer_class = PreTrainedTokenizerFast if has_json else AutoTokenizer
    theirs = tokenizer_class.from_pretrained(str(checkpoint))
    if not (checkpoint / chat_template.FILE).exists() and (found := chat_template.of_processor(checkpoint)):
        theirs.chat_template = found[chat_template.DEFAULT]  # which is what a processor renders with

    def render(name: str, messages: Messages, tools: Tools, generation: bool) -> str | None:
        template = name if isinstance(theirs.chat_template, dict) else None
        try:
            text = theirs.apply_chat_template(
                messages, tools=tools, chat_template=template, add_generation_prompt=generation, tokenize=False
            )
        except Exception:  # a template can raise anything; what matters is that it raised
            return None
        return str(text)

    return render


def _shown(text: str | None) -> str:
    return "(refused)" if text is None else repr(text)
