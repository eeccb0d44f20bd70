"""Relevance by a language model: a query and a document become a prompt, as the checkpoint's template has them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...convert.errors import BadGGUF
from ...convert.gguf import Value
from ...convert.judge import PARTS_KEY, TEMPLATE_KEY
from ..chat.conversation import special_tokens
from ..chat.history import Defuser, cut
from ..chat.template import Template
from ..engine.info import control_tokens
from .text import Encoded, Length, too_long

if TYPE_CHECKING:
    from ..llama.vocab import Vocab

PROBE = "a8Wq3"


class Judge:
    """The prompts of one model. No text can forge a control token in them.

    Raises:
        BadGGUF: the file has no template, or one that leaves the query or the document out.
    """

    def __init__(self, metadata: Mapping[str, Value], vocab: Vocab) -> None:
        source = metadata.get(TEMPLATE_KEY)
        if not isinstance(source, str):
            raise BadGGUF("the file is of a model that judges documents, and has no template for them",
                          hint="convert the checkpoint anew")  # fmt: skip
        self._template = Template(source, special_tokens(metadata))
        self._defuser = Defuser(control_tokens(metadata))
        self._in_parts = metadata.get(PARTS_KEY) is True
        self._vocab = vocab
        if any(PROBE not in self._render(*texts, "")[0] for texts in ((PROBE, ""), ("", PROBE))):
            raise BadGGUF("the template of the file does not put both a query and a document into the prompt",
                          hint="it must have the roles query and document")  # fmt: skip

    def encode(self, query: str, document: str, instruction: str, length: Length) -> Encoded:
        """A query and a document as the model reads them; what is cut, if it must be, is the document.

        Raises:
            ContextLengthExceeded: they are too long, and are not to be cut; or what is not the document is.
        """
        ids = self._tokens(query, document, instruction)
        whole = len(ids)
        if whole > length.most and not length.truncate:
            raise too_long(whole, length.most)
        words = self._vocab.tokenize(document, add_special=False, parse_special=False) if whole > length.most else []
        while len(ids) > length.most:
            if not words:
                raise too_long(len(ids), length.most)
            words = words[: -(len(ids) - length.most)]
            ids = self._tokens(query, self._vocab.detokenize(words).rstrip("\ufffd"), instruction)
        return Encoded(ids, [0] * len(ids), cut=whole - len(ids))

    def _tokens(self, query: str, document: str, instruction: str) -> list[int]:
        text, cuts = self._render(query, document, instruction)
        pieces = [text[begin:end] for begin, end in itertools.pairwise((0, *cuts, len(text)))]
        return [
            token
            for index, piece in enumerate(pieces)
            for token in self._vocab.tokenize(piece, add_special=False, parse_special=True, continues=index > 0)
        ]

    def _render(self, query: str, document: str, instruction: str) -> tuple[str, Sequence[int]]:
        contents = (("system", instruction), ("query", query), ("document", document))
        messages = [self._message(role, content) for role, content in contents if content or role != "system"]
        defused, mark = self._defuser.defused(messages)
        return cut(self._template.render(defused, add_generation_prompt=False), mark)

    def _message(self, role: str, content: str) -> dict[str, Any]:
        return {"role": role, "content": [{"type": "text", "text": content}] if self._in_parts else content}
