"""Language models that judge whether a document answers a query: by how likely one word, "yes", comes next, or how much
likelier than another, "no".

Of the head only the rows of these words are kept (see :mod:`.heads`), and the template that makes a query and a
document a prompt. A checkpoint says that it is one by a module LogitScore of sentence-transformers; Qwen3-Reranker said
it in its model card only before there was such a module, and its template is of that card.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import chat_template, sentence
from .attach import Attached, Layer
from .config import Config
from .errors import BadCheckpoint, UnsupportedModel
from .families import Family
from .gguf import Value
from .heads import RELEVANCE, Step
from .jsonfile import read_array, read_bytes, read_object
from .tensor import Tensor

MODULE = "LogitScore"
TEMPLATE_KEY, PARTS_KEY = "ingle.judge.template", "ingle.judge.parts"
FAMILIES = ("llama", "qwen2", "qwen3")  # whose logits are the head's product with the states, and nothing else
CARD = re.compile(r"^# Qwen3-Reranker", re.MULTILINE)
MOST_CARD_BYTES = 4 << 20
QWEN3_TEMPLATE = (
    "{%- set said = messages | selectattr('role', 'eq', 'system') | map(attribute='content') | first -%}\n"
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    "<Instruct>: {{ said or 'Given a web search query, retrieve relevant passages that answer the query' }}\n"
    "<Query>: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }}\n"
    "<Document>: {{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n\n"  # Jinja drops the last line break
)


def is_judge(folder: Path, architecture: str) -> bool:
    """Whether a checkpoint says that it is one."""
    return MODULE in _modules(folder) or _is_qwen3(folder, architecture)


def read(
    folder: Path, architecture: str, family: Family, config: Config, tensors: Mapping[str, Tensor]
) -> Attached | None:
    """The head, or None for any other model. ``tensors``: by the names of the family.

    Raises:
        BadCheckpoint: the words are no tokens of it. UnsupportedModel: the head or its place is another one.
    """
    if not is_judge(folder, architecture):
        return None
    modules = _modules(folder)
    if modules and list(modules) != ["Transformer", MODULE]:
        raise UnsupportedModel(f"{folder / sentence.MODULES}: {MODULE} must follow a Transformer, and end the list")
    if family.arch not in FAMILIES:
        raise UnsupportedModel(f"a {MODULE} on {architecture}: its logits are not the plain product of head and states",
                               hint=f"models of {', '.join(FAMILIES)} can be judges")  # fmt: skip
    words = _words(folder / modules[MODULE]) if modules else _spelled(folder, ("yes", "no"))
    if not all(0 <= word < config.vocab_size for word in words):
        raise BadCheckpoint(f"{MODULE} names the tokens {words}, and the vocabulary has {config.vocab_size:,}")
    name = family.embedding if config.tied or family.head not in tensors else family.head
    if name not in tensors:
        raise BadCheckpoint(f"the tensor {name} is missing, whose rows {MODULE} reads")
    steps = (Step("linear", "out"), *([Step("margin")] if len(words) == 2 else []))
    return Attached(RELEVANCE, "last", steps, {"out": Layer(tensors[name], None, words)}).kept_whole()


def metadata(folder: Path) -> dict[str, Value]:
    """The template that a query and a document go through, and whether it takes contents in parts.

    Raises:
        UnsupportedModel: there is none.
    """
    if MODULE not in _modules(folder):
        return {TEMPLATE_KEY: QWEN3_TEMPLATE}
    template = chat_template.find(folder, _optional(folder / "tokenizer_config.json")).get(chat_template.DEFAULT)
    if template is None:
        raise UnsupportedModel(f"{folder} has a {MODULE} and no chat template that makes query and document a prompt",
                               hint=f"put it into {chat_template.FILE}, with the roles query and document")  # fmt: skip
    return {TEMPLATE_KEY: template, **({PARTS_KEY: True} if _takes_parts(folder) else {})}


def _modules(folder: Path) -> dict[str, str]:
    """Kind and folder of sentence-transformers' modules; empty where there is no list of them."""
    path = folder / sentence.MODULES
    return dict(map(sentence.module, read_array(path))) if path.is_file() else {}


def _words(folder: Path) -> tuple[int, ...]:
    settings = read_object(folder / "config.json")
    words = [settings.get("true_token_id"), settings.get("false_token_id")]
    if type(words[0]) is not int or type(words[1]) not in (int, type(None)):
        raise BadCheckpoint(f"{folder / 'config.json'} must have true_token_id and false_token_id, not {words}")
    return tuple(word for word in words if word is not None)


def _spelled(folder: Path, words: tuple[str, ...]) -> tuple[int, ...]:
    vocab = read_object(folder / "tokenizer.json").get("model", {}).get("vocab", {})
    missing = [word for word in words if type(vocab.get(word)) is not int]
    if missing:
        raise BadCheckpoint(f"the model card is Qwen3-Reranker's, and the vocabulary has no {missing[0]!r}")
    return tuple(vocab[word] for word in words)


def _is_qwen3(folder: Path, architecture: str) -> bool:
    card = folder / "README.md"
    if architecture != "Qwen3ForCausalLM" or not card.is_file() or (folder / sentence.MODULES).is_file():
        return False
    return CARD.search(read_bytes(card, MOST_CARD_BYTES).decode("utf-8", "replace")) is not None


def _takes_parts(folder: Path) -> bool:
    message = (_optional(folder / sentence.LENGTH).get("modality_config") or {}).get("message") or {}
    return message.get("format") == "structured"


def _optional(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}
