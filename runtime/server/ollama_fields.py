"""What Ollama's ``/api/chat`` and ``/api/generate`` share: options, format, thinking, durations."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from ...convert.errors import BadRequest
from ..chat import Output
from ..request import Delta, ModelInfo, Sampling, Usage
from .asking import Asking
from .chat import effort_variables, thinking_variables
from .errors import UnsupportedParameter, ollama_payload
from .openai_fields import INT64, MOST_LOGPROBS, MOST_STOPS, LookBack, Penalty, Repeat, Unit, UnitNotZero
from .posted import Part
from .sse import Framing, line

FRAMING = Framing(line, ollama_payload, done=b"", keep_alive=b"", media_type="application/x-ndjson")
SECOND = 1_000_000_000
NO_EFFECT = (
    "num_batch",
    "num_gpu",
    "main_gpu",
    "low_vram",
    "f16_kv",
    "numa",
    "use_mmap",
    "use_mlock",
    "num_thread",
    "num_keep",
    "vocab_only",
    "logits_all",
    "embedding_only",
    "penalize_newline",
)
"""Options of another engine, or of a model that is loaded already: they change no answer here."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Options(Part):
    num_predict: Annotated[int, Field(ge=-2)] | None = None
    num_ctx: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    top_p: UnitNotZero | None = None
    min_p: Unit | None = None
    typical_p: UnitNotZero | None = None
    repeat_penalty: Repeat | None = None
    repeat_last_n: LookBack | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    mirostat: Literal[0, 1, 2] | None = None
    mirostat_tau: Annotated[float, Field(gt=0)] | None = None
    mirostat_eta: Unit | None = None
    seed: Annotated[int, Field(ge=-INT64, lt=INT64)] | None = None
    stop: (
        Annotated[
            list[str], Field(max_length=MOST_STOPS), BeforeValidator(_as_list, json_schema_input_type=str | list[str])
        ]
        | None
    ) = None

    def sampling(self) -> Sampling:
        known = {name: value for name, value in self if name in Sampling.__dataclass_fields__ and value is not None}
        return Sampling(**known)

    @property
    def most_tokens(self) -> int | None:
        """None for "until the window is full", which Ollama writes as a negative number."""
        return self.num_predict if self.num_predict is not None and self.num_predict > 0 else None


class OllamaAsking(Asking):
    framing: ClassVar[Framing] = FRAMING

    model: Annotated[str, Field(min_length=1, max_length=512), BeforeValidator(lambda name: bare_name(name))]
    stream: bool | None = None
    options: Options | None = None
    format: str | dict[str, Any] | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None

    @property
    def streams(self) -> bool:
        return self.stream is not False

    def examine(self) -> None:
        self.output()
        if self.settings.num_predict == 0:
            raise BadRequest("options.num_predict is 0; nothing would be written", param="options.num_predict")

    def ignored(self, strict: bool) -> list[str]:
        given = (self.options.model_extra or {}) if self.options else {}
        harmless = [f"options.{name}" for name in given if name in NO_EFFECT]
        unknown = [name for name in super().ignored(False) if name not in harmless]
        if strict and unknown:
            super().ignored(strict)
        return unknown + harmless

    def check(self, info: ModelInfo) -> None:
        """Raise :class:`BadRequest` for values that only the loaded model can tell to be wrong."""
        super().check(info)
        if self.settings.num_ctx is not None and self.settings.num_ctx > info.context_length:
            raise UnsupportedParameter(
                f"options.num_ctx is {self.settings.num_ctx}; the model is loaded with {info.context_length}",
                hint="start the server with a larger --ctx",
                param="options.num_ctx",
            )

    @property
    def settings(self) -> Options:
        return self.options or Options()

    @property
    def wanted_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    def output(self) -> Output | None:
        if self.format in (None, ""):
            return None
        if self.format == "json":
            return Output("json", {"type": "object"}, "format")
        if isinstance(self.format, Mapping):
            return Output("json", self.format, "format")
        raise BadRequest(f"format is 'json' or a JSON schema (got {self.format!r:.60})", param="format")

    def variables(self, info: ModelInfo) -> dict[str, Any]:
        """What the template is told of thinking.

        Raises:
            UnsupportedParameter: it is wanted, and the template has no switch for it.
        """
        if self.think is None:
            return {}
        if isinstance(self.think, str):
            return effort_variables(self.think, info)
        found = thinking_variables(self.think, info)
        if self.think and not found and "<think>" not in " ".join(info.chat_templates.values()):
            raise UnsupportedParameter("think: this model does not think", param="think")
        return found


def bare_name(name: Any) -> Any:
    """Ollama's clients say ``:latest`` where nobody said a tag."""
    return name.removesuffix(":latest") if isinstance(name, str) else name


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def figures(used: Usage, reason: str) -> dict[str, Any]:
    """How it ended, and what it cost: durations in nanoseconds."""
    prefill, decode, queue = (int(seconds * SECOND) for seconds in (used.prefill_s, used.decode_s, used.queue_s))
    return {
        "done": True,
        "done_reason": reason,
        "total_duration": prefill + decode + queue,
        "load_duration": 0,
        "prompt_eval_count": used.prompt_tokens,
        "prompt_eval_duration": prefill,
        "eval_count": used.completion_tokens,
        "eval_duration": decode,
    }


def reason_of(delta: Delta) -> str:
    return delta.finish_reason or "stop"
