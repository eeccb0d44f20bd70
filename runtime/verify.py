"""The proof: a checkpoint and the GGUF made from it, side by side.

The checkpoint's own tokenizer and llama.cpp must give the same ids for thousands of strings, and the chat templates
in the file must render as transformers renders the checkpoint's. It runs in a child process, because a wrong file can
end the process that loads it. The child writes one JSON object per line: progress, then a verdict or an error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ..convert import chat_template, errors, gguf, tokenizer
from ..convert import child as child_process
from ..convert.errors import BadCheckpoint, BadGGUF, IngleError, LoadFailed, TemplateError, VerificationFailed
from ..convert.gguf import Value
from ..convert.progress import Progress, silent
from ..convert.vocabulary import TokenType
from . import corpus
from .chat import Template
from .chat.conversation import special_tokens

if TYPE_CHECKING:
    from .llama.vocab import Vocab

MOST_SECONDS = 900
STAGE = "verify"
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
ADDED = (TokenType.CONTROL, TokenType.USER_DEFINED)

Encode = Callable[[str, bool], list[int]]
"""Text and whether the tokenizer adds its special tokens -> ids."""
Messages = list[dict[str, Any]]
Tools = list[Mapping[str, Any]] | None
Case = tuple[str, Messages, Tools, bool]
Render = Callable[[str, Messages, Tools, bool], str | None]
"""A template's name, messages, tools and whether to open an answer -> text; None when the template refuses."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found equal: strings (each with and without added special tokens), and renderings of chat templates,
    of which ``refusals`` were refused by the template in both."""

    strings: int
    renderings: int
    refusals: int


def prove(checkpoint: Path, file: Path, progress: Progress = silent) -> Verdict:
    """Compare the tokenizer and chat templates of ``checkpoint`` with those of the GGUF ``file``, whatever its name.

    Raises:
        VerificationFailed: they differ (the message shows where), or llama.cpp cannot load the file or dies of it.
        BadCheckpoint, BadGGUF: one of the two cannot be read at all.
    """
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            child_process.command(f"{__name__}:serve", str(checkpoint), str(file)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=child_process.environment(**OFFLINE),
        )
        timer = threading.Timer(MOST_SECONDS, child.kill)
        timer.start()
        try:
            verdict = _follow(child, progress)
        finally:
            timer.cancel()
            child.kill()
            child.communicate()
        if verdict is None:
            raise _death(child.returncode, file, log)
        return verdict


def serve() -> None:
    """The child: compares the two files that its arguments name."""
    child_process.end_with_parent()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)  # whatever else writes to stdout must not end up between our lines

        def say(**event: Any) -> None:
            print(json.dumps(event), file=out, flush=True)

        try:
            verdict = compare(Path(sys.argv[1]), Path(sys.argv[2]), lambda *step: say(progress=step))
        except IngleError as error:
            say(error=type(error).__name__, message=error.message, hint=error.hint)
        else:
            say(verdict=asdict(verdict))


def compare(checkpoint: Path, file: Path, progress: Progress) -> Verdict:
    """The comparison itself, in this process."""
    metadata = gguf.read(file).metadata
    strings = _compare_tokens(checkpoint, file, metadata, progress)
    renderings, refusals = _compare_templates(checkpoint, metadata)
    return Verdict(strings, renderings, refusals)


def _follow(child: subprocess.Popen[bytes], progress: Progress) -> Verdict | None:
    """Read the child's lines to the end; None when it died without a verdict."""
    verdict = None
    for line in child.stdout or ():
        event = json.loads(line)
        if "progress" in event:
            progress(*event["progress"])
        elif "verdict" in event:
            verdict = Verdict(**event["verdict"])
        else:
            raise getattr(errors, event["error"])(event["message"], hint=event["hint"])
    child.wait()
    return verdict


def _death(status: int, file: Path, log: IO[bytes]) -> VerificationFailed:
    log.seek(0)
    lines = log.read().decode("utf-8", "replace").strip().splitlines()
    how = child_process.manner_of_death(status)
    return VerificationFailed(
        f"the proof of {file} {how}: {' '.join(lines[-3:]) or 'it left no message'}",
        hint="llama.cpp cannot load this file safely; please report the checkpoint",
    )


def _compare_tokens(checkpoint: Path, file: Path, metadata: Mapping[str, Value], progress: Progress) -> int:
    truth = _truth(checkpoint)
    with _open(file) as vocab:
        ordinary, added = _texts(vocab, metadata)
        texts = corpus.strings(ordinary, added if truth.parses_special else ())
        for index, text in enumerate(texts):
            for add_special in (False, True):
                want = truth.encode(text, add_special)
                got = vocab.tokenize(text, add_special=add_special, parse_special=truth.parses_special)
                if want != got:
                    raise _mismatch(index, text, add_special, want, got)
            if index % 100 == 0:
                progress(STAGE, index, len(texts))
    progress(STAGE, len(texts), len(texts))
    return len(texts)


def _open(file: Path) -> Vocab:
    from .llama.vocab import Vocab

    try:
        return Vocab.open(file)
    except LoadFailed as error:
        raise VerificationFailed(error.message, hint="the converted vocabulary is wrong; please report it") from error


def _texts(vocab: Vocab, metadata: Mapping[str, Value]) -> tuple[list[str], list[str]]:
    """The texts of ordinary tokens (the space marker shown as a space), and of added ones."""
    spelled, types = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.token_type")
    if not isinstance(spelled, list) or not isinstance(types, np.ndarray):
        raise BadGGUF("the file has no vocabulary")
    ordinary = [index for index, kind in enumerate(types) if kind == TokenType.NORMAL]
    added = [text for text, kind in zip(spelled, types, strict=True) if kind in ADDED]
    return [vocab.piece(index).decode("utf-8", "replace") for index in ordinary], added


@dataclass(frozen=True, slots=True)
class _Truth:
    """The checkpoint's own tokenizer. ``parses_special``: it finds added tokens in a text."""

    encode: Encode
    parses_special: bool


def _truth(checkpoint: Path) -> _Truth:
    """From the files themselves, not through transformers, which builds some tokenizers from its own code instead."""
    if (checkpoint / "tokenizer.json").is_file():
        return _Truth(_from_json(checkpoint / "tokenizer.json"), parses_special=True)
    file = tokenizer.sentencepiece_file(checkpoint)
    if file is None:
        raise BadCheckpoint(f"{checkpoint} has no tokenizer")
    return _Truth(_from_sentencepiece(checkpoint, file), parses_special=False)


def _from_json(file: Path) -> Encode:
    from tokenizers import Tokenizer

    truth = Tokenizer.from_file(str(file))
    truth.no_truncation()
    truth.no_padding()
    return lambda text, add_special: list(truth.encode(text, add_special_tokens=add_special).ids)


def _from_sentencepiece(checkpoint: Path, file: Path) -> Encode:
    """sentencepiece itself adds nothing; what is put around a text is a setting of the checkpoint."""
    from sentencepiece import SentencePieceProcessor

    truth = SentencePieceProcessor(model_file=str(file))
    before, after = tokenizer.around(checkpoint)
    return lambda text, add_special: [*before, *truth.encode(text), *after] if add_special else list(truth.encode(text))


def _mismatch(index: int, text: str, add_special: bool, want: list[int], got: list[int]) -> VerificationFailed:
    how = "with" if add_special else "without"
    return VerificationFailed(
        f"the tokenizers differ at string {index}, {how} added special tokens: {text!r}\n"
        f"  checkpoint: {want}\n  llama.cpp:  {got}",
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
