"""What OpenAI's answers have in common: usage, token log-probabilities, and our own extras under ``ingle``."""

from __future__ import annotations

import codecs
import hashlib
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..request import Delta, ModelInfo, TokenLogprob, Usage


@dataclass(frozen=True, slots=True)
class Head:
    """What every chunk of one answer repeats."""

    id: str
    model: str
    fingerprint: str
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def of(cls, prefix: str, model: str, info: ModelInfo) -> Head:
        return cls(f"{prefix}-{uuid.uuid4().hex}", model, fingerprint(info))

    def object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        }


def fingerprint(info: ModelInfo) -> str:
    """Changes when the model or the way it is loaded does, so that equal seeds may be compared."""
    facts = (
        info.name,
        info.size_bytes,
        info.parameters,
        info.context_length,
        info.kv_cells,
        info.threads,
        info.gpu_layers,
    )
    return "fp_" + hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def usage(used: Usage, reasoning_tokens: int | None = None) -> dict[str, Any]:
    details = {} if reasoning_tokens is None else {"completion_tokens_details": {"reasoning_tokens": reasoning_tokens}}
    return details | {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "total_tokens": used.prompt_tokens + used.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": used.cached_tokens},
    }


def timings(used: Usage) -> dict[str, Any]:
    """Seconds and tokens per second, beside the usage."""
    evaluated = used.prompt_tokens - used.cached_tokens
    return {
        "queue_s": round(used.queue_s, 4),
        "prefill_s": round(used.prefill_s, 4),
        "decode_s": round(used.decode_s, 4),
        "prefill_tokens_per_s": _rate(evaluated, used.prefill_s),
        "decode_tokens_per_s": _rate(used.completion_tokens, used.decode_s),
        "drafted_tokens": used.drafted_tokens,
        "accepted_tokens": used.accepted_tokens,
        "model_drafted_tokens": used.model_drafted_tokens,
        "model_accepted_tokens": used.model_accepted_tokens,
    }


def _rate(tokens: int, seconds: float) -> float | None:
    return round(tokens / seconds, 2) if seconds > 0 else None


def with_usage(answer: dict[str, Any], used: Usage, reasoning_tokens: int | None = None) -> dict[str, Any]:
    return answer | {"usage": usage(used, reasoning_tokens), "ingle": {"timings": timings(used)}}


def ending(delta: Delta, reason: str | None = None) -> dict[str, Any]:
    """How a choice ended: OpenAI's word, and ours that tells a full window from a reached ``max_tokens``."""
    if delta.finish_reason is None:
        return {"finish_reason": None}
    return {"finish_reason": reason or delta.finish_reason, "ingle": {"stop_detail": delta.stop_detail}}


def token_text(piece: bytes) -> str:
    """A token as text; one that is no whole character in OpenAI's notation, ``bytes:\\xe2\\x82``."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def chat_logprobs(tokens: Iterable[TokenLogprob]) -> dict[str, Any]:
    """``{"content": [...]}``, as chat completions report them."""
    return {"content": [{**_chat_token(token), "top_logprobs": _chat_top(token)} for token in tokens], "refusal": None}


def _chat_token(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token_text(token.piece), "logprob": token.logprob, "bytes": list(token.piece)}


def _chat_top(token: TokenLogprob) -> list[dict[str, Any]]:
    return [_chat_token(alternative) for alternative in token.top]


class LegacyLogprobs:
    """``{"tokens", "token_logprobs", "top_logprobs", "text_offset"}``, as completions report them.

    One per choice: the offsets, in characters, go on from piece to piece.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def of(self, tokens: Iterable[TokenLogprob]) -> dict[str, Any]:
        tokens = tuple(tokens)
        return {
            "tokens": [token_text(token.piece) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{token_text(top.piece): top.logprob for top in token.top} for token in tokens],
            "text_offset": [self._advance(token.piece) for token in tokens],
        }

    def _advance(self, piece: bytes) -> int:
        offset = self._offset
        self._offset += len(self._decoder.decode(piece))
        return offset
