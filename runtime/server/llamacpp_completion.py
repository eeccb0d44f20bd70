"""llama.cpp's own ``/completion``: JSON to prompts, deltas to JSON. Pure functions; the road is in exchange.py."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from ...convert.errors import BadRequest
from ..engine.stream import Stream
from ..request import Delta, ModelInfo, Sampling, TokenLogprob, Usage
from .chat import Opening
from .continuation import MOST_PROMPTS, Continuation, is_token, malformed, unknown_token
from .errors import UnsupportedParameter, shown
from .openai_fields import INT64, MOST_BIASES, MOST_LOGPROBS, UNSUPPORTED
from .openai_shapes import token_text
from .pool import Servable
from .sse import Framing

SERVED = ("n_predict", "n_probs")
STOPS = {"eos": "eos", "stop_string": "word", "max_tokens": "limit", "context_window": "limit", None: "none"}
MOST_FIELDS = 64

Part = str | int
Prompt = tuple[Part, ...]
"""Texts and token ids, one behind the other."""


def prompts_of(value: Any) -> list[Prompt]:
    """A text, a mixture of texts and token ids, ``{"prompt_string": text}``, or a list of these.

    Raises:
        BadRequest: it is none of these; ``param`` is the path of the fault.
    """
    if not isinstance(value, list):
        return [_one("prompt", value)]
    if any(is_token(part) for part in value):
        return [_mixed("prompt", value)]
    if not 0 < len(value) <= MOST_PROMPTS:
        raise BadRequest(f"prompt: a list must have 1 to {MOST_PROMPTS} prompts, not {len(value)}", param="prompt")
    return [_one(f"prompt[{index}]", item) for index, item in enumerate(value)]


def _one(place: str, value: Any) -> Prompt:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Mapping) and isinstance(value.get("prompt_string"), str):
        if value.get("multimodal_data"):
            raise UnsupportedParameter("pictures are taken by /v1/chat/completions", param=f"{place}.multimodal_data")
        return (value["prompt_string"],)
    return _mixed(place, value)


def _mixed(place: str, value: Any) -> Prompt:
    if not isinstance(value, list) or not value:
        raise malformed(place, value)
    for index, part in enumerate(value):
        if not isinstance(part, str) and not (is_token(part) and part >= 0):
            raise malformed(f"{place}[{index}]", part)
    return tuple(value)


class CompletionRequest(Continuation):
    framing: ClassVar[Framing] = Framing(done=b"")
    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
        {
            **{name: values for name, values in UNSUPPORTED.items() if name not in SERVED},
            "post_sampling_probs": (None, False),
            "t_max_predict_ms": (None, 0),
            "n_indent": (None, 0),
            "lora": (None, []),
        }
    )

    n_predict: Annotated[int, Field(ge=-1)] | None = None
    n_probs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    seed: Annotated[int, Field(ge=-1, lt=INT64)] | None = None
    logit_bias: Any = None
    return_tokens: bool | None = None
    response_fields: Annotated[list[str], Field(max_length=MOST_FIELDS)] | None = None
    cache_prompt: bool | None = None

    @field_validator("prompt")
    @classmethod
    def _several_ways(cls, value: Any) -> list[Prompt]:
        return prompts_of(value)

    @field_validator("n_predict")
    @classmethod
    def _writes(cls, most: int | None) -> int | None:
        if most == 0:
            raise ValueError("nothing would be written")
        return most

    @field_validator("logit_bias")
    @classmethod
    def _pairs(cls, value: Any) -> dict[Part, float] | None:
        return None if value is None else _biases(value)

    @property
    def includes_usage(self) -> bool:
        return True

    @property
    def most_tokens(self) -> int | None:
        """-1 is llama.cpp's word for as many as there is room for."""
        given = self.n_predict if self.n_predict is not None else self.max_tokens
        return None if given == -1 else given

    def biases(self) -> dict[int, float]:
        """Those given by token id; a text is more than the request itself knows."""
        return {token: bias for token, bias in (self.logit_bias or {}).items() if isinstance(token, int)}

    def sampling(self) -> Sampling:
        """As :meth:`Fields.sampling`; a seed of -1 is any."""
        sampling = super().sampling()
        return replace(sampling, seed=None) if self.seed == -1 else sampling

    def check(self, info: ModelInfo) -> None:
        super().check(info)
        if self.most_tokens is not None and self.most_tokens > info.context_length:
            raise BadRequest(
                f"n_predict is {self.most_tokens}; with this model it is {info.context_length} at most",
                hint="-1 writes until the window is full",
                param="n_predict",
            )
        for token in (part for prompt in self.prompt for part in prompt if isinstance(part, int)):
            if token >= info.vocabulary:
                raise unknown_token(token, info.vocabulary)

    def start(self, model: Servable, prompt: int) -> Stream:
        """Submit the prompt of that number."""
        sampling = replace(self.sampling(), logit_bias=self._all_biases(model))
        return self.submit(model, _tokenized(model, self.prompt[prompt]), sampling, self.n_probs or None)

    def writer(self, opening: Opening) -> CompletionWriter:
        return CompletionWriter(self, opening)

    def _all_biases(self, model: Servable) -> dict[int, float]:
        """Of texts, too: each of the tokens of one."""
        texts = [(part, bias) for part, bias in (self.logit_bias or {}).items() if isinstance(part, str)]
        of_texts = {
            token: bias for text, bias in texts for token in model.tokenize(text, add_special=False, parse_special=True)
        }
        return of_texts | self.biases()


def _tokenized(model: Servable, prompt: Prompt) -> str | tuple[int, ...]:
    """A text alone stays one; of several parts the first brings the tokens that begin a text."""
    if len(prompt) == 1 and isinstance(prompt[0], str):
        return prompt[0]
    tokens: list[int] = []
    for index, part in enumerate(prompt):
        if isinstance(part, int):
            tokens.append(part)
        else:
            tokens += model.tokenize(part, add_special=index == 0, parse_special=True)
    return tuple(tokens)


def _biases(value: Any) -> dict[Part, float]:
    """``{"15": -1, "word": 1}`` or ``[[15, -1], ["word", false]]``; false is never."""
    pairs = [[_key(key), bias] for key, bias in value.items()] if isinstance(value, Mapping) else value
    if not isinstance(pairs, list) or len(pairs) > MOST_BIASES:
        raise ValueError(f"must be up to {MOST_BIASES} pairs of a token, or a text, and a number")
    biases: dict[Part, float] = {}
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(f"{shown(pair)} is no pair of a token, or a text, and a number")
        token, bias = pair
        known = isinstance(token, str) or (is_token(token) and token >= 0)
        if not known or not (bias is False or _is_number(bias)):
            raise ValueError(f"{shown(pair)} is no pair of a token, or a text, and a number from -100 to 100")
        biases[token] = -math.inf if bias is False else float(bias)
    return biases


def _key(key: str) -> Part:
    return int(key) if key.isascii() and key.isdecimal() and len(key) < 11 else key


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -100 <= value <= 100


class CompletionWriter:
    """Writes one answer in llama.cpp's shape; choice ``i`` of prompt ``p`` has the index ``p * n + i``."""

    def __init__(self, asked: CompletionRequest, opening: Opening) -> None:
        self._asked = asked
        self._opening = opening
        self._ends: dict[int, Delta] = {}
        self._counts: dict[int, int] = {}
        self._lines: set[int] = set()  # of choices with a line break

    def chunks(self, prompt: int, delta: Delta) -> Iterator[dict[str, Any]]:
        index = prompt * self._asked.choices + delta.index
        self._saw(index, [delta])
        if delta.tokens:
            counts = {"tokens_predicted": self._counts[index], "tokens_evaluated": self._opening.prompt_tokens}
            yield {
                "index": index,
                "content": delta.text,
                "tokens": list(delta.tokens),
                "stop": False,
                **counts,
                **_probabilities(delta.logprobs),
            }

    def last_chunks(self, used: Usage) -> Iterator[dict[str, Any]]:
        for index, end in sorted(self._ends.items()):
            yield self._final(index, "" if end.tokens else end.text, [], used)

    def whole(self, deltas: list[list[Delta]], used: Usage) -> Any:
        """``deltas``: by choice. One answer, or a list for several."""
        answers = []
        for index, pieces in enumerate(deltas):
            self._saw(index, pieces)
            tokens = [token for piece in pieces for token in piece.tokens] if self._asked.return_tokens else []
            extras = _probabilities([one for piece in pieces for one in piece.logprobs])
            answer = self._final(index, "".join(piece.text for piece in pieces), tokens, used) | extras
            answers.append(_picked(answer, self._asked.response_fields or ()))
        return answers[0] if len(answers) == 1 else answers

    def _saw(self, index: int, deltas: list[Delta]) -> None:
        self._counts[index] = self._counts.get(index, 0) + sum(len(delta.tokens) for delta in deltas)
        if any("\n" in delta.text for delta in deltas):
            self._lines.add(index)
        if deltas and deltas[-1].finish_reason is not None:
            self._ends[index] = deltas[-1]

    def _final(self, index: int, content: str, tokens: list[int], used: Usage) -> dict[str, Any]:
        stop = self._ends[index].stop_detail
        words = self._asked.stop or []
        answer: dict[str, Any] = {
            "index": index,
            "content": content,
            "tokens": tokens,
            "stop": True,
            "model": self._opening.model,
            "tokens_predicted": self._counts[index],
            "generation_settings": _settings(self._asked, self._opening.info),
            "prompt": self._prompt(index),
            "has_new_line": index in self._lines,
            "truncated": stop == "context_window",
            "stop_type": STOPS[stop],
            "stopping_word": words[0] if stop == "stop_string" and len(words) == 1 else "",
        }
        if len(self._ends) == 1:  # what several cost together says little of one
            answer |= {
                "tokens_evaluated": used.prompt_tokens,
                "tokens_cached": used.cached_tokens,
                "timings": timings(used),
            }
        return answer

    def _prompt(self, index: int) -> Any:
        prompt = self._asked.prompt[index // self._asked.choices]
        return prompt[0] if len(prompt) == 1 else list(prompt)


def timings(used: Usage) -> dict[str, Any]:
    """Milliseconds and rates, in llama.cpp's words. The first token costs no step of its own."""
    read, steps = used.prompt_tokens - used.cached_tokens, max(used.completion_tokens - 1, 0)
    drafts = {"draft_n": used.drafted_tokens, "draft_n_accepted": used.accepted_tokens} if used.drafted_tokens else {}
    return drafts | {
        "cache_n": used.cached_tokens,
        "prompt_n": read,
        "prompt_ms": used.prefill_s * 1e3,
        "prompt_per_token_ms": _over(used.prefill_s * 1e3, read),
        "prompt_per_second": _over(read, used.prefill_s),
        "predicted_n": used.completion_tokens,
        "predicted_ms": used.decode_s * 1e3,
        "predicted_per_token_ms": _over(used.decode_s * 1e3, steps),
        "predicted_per_second": _over(steps, used.decode_s),
    }


def _over(amount: float, units: float) -> float:
    return amount / units if units else 0.0


def _settings(asked: CompletionRequest, info: ModelInfo) -> dict[str, Any]:
    """What was asked for, and what the model has by itself where nothing was."""
    chosen = {name: value for name, value in asdict(asked.sampling()).items() if value is not None}
    defaults = {name: value for name, value in asdict(info.sampling).items() if value is not None}
    values = defaults | chosen
    values["logit_bias"] = [list(pair) for pair in (asked.logit_bias or {}).items() if math.isfinite(pair[1])]
    limit = -1 if asked.most_tokens is None else asked.most_tokens
    others = {"n_predict": limit, "max_tokens": limit, "n_ctx": info.context_length, "n_probs": asked.n_probs or 0}
    return {"seed": -1, **values, **others, "stop": asked.stop or [], "stream": asked.streams}


def _picked(answer: dict[str, Any], fields: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """Only ``fields``, if there are some; ``a/b`` is ``b`` within ``a``."""
    if not fields:
        return answer
    found = {}
    for name in fields:
        first, _, second = name.partition("/")
        value = answer.get(first)
        if second and isinstance(value, dict) and second in value:
            found[name] = value[second]
        elif not second and first in answer:
            found[name] = value
    return found


def _probabilities(tokens: list[TokenLogprob] | tuple[TokenLogprob, ...]) -> dict[str, Any]:
    if not tokens:
        return {}
    shown_tokens = [{**_shown(token), "top_logprobs": [_shown(other) for other in token.top]} for token in tokens]
    return {"completion_probabilities": shown_tokens}


def _shown(token: TokenLogprob) -> dict[str, Any]:
    piece = token.piece
    return {"id": token.token, "token": token_text(piece), "bytes": list(piece), "logprob": token.logprob}
