"""The fields that OpenAI's chat and completions share, their ranges, and what they mean to the engine."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator

from ...convert.errors import BadRequest
from ..chat import Output
from ..request import ModelInfo, Sampling
from .keeping import seconds_of
from .openai_output import output_of
from .posted import ModelName, Part, Posted
from .sse import Framing

MOST_CHOICES = 16
MOST_BIASES = 1024
MOST_STOPS = 16
MOST_STOP_BYTES = 256
MOST_LOGPROBS = 20
INT64 = 2**63

Unit = Annotated[float, Field(ge=0, le=1)]
UnitNotZero = Annotated[float, Field(gt=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Repeat = Annotated[float, Field(gt=0, le=2)]
LookBack = Annotated[int, Field(ge=-1, le=2**31 - 1)]
Bias = Annotated[float, Field(ge=-100, le=100)]

# Fields that count tokens of the context window, and how to say "all of it". (Samplers keep buffers of the last ones.)
WITHIN_WINDOW: Mapping[str, str] = MappingProxyType(
    {
        "max_tokens": "leave it out to write until the window is full",
        "max_completion_tokens": "leave it out to write until the window is full",
        "repeat_last_n": "-1 looks back on all of it",
        "dry_penalty_last_n": "-1 looks back on all of it",
    }
)

# Fields that would change the answer, and the values of them that ask for nothing.
UNSUPPORTED: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "functions": (None, []),
        "function_call": (None, "none", "auto"),
        "modalities": (None, ["text"]),
        "store": (None, False),
        "stop_token_ids": (None, []),
        "min_tokens": (None, 0),
        "use_beam_search": (None, False),
        "continue_final_message": (None, False),
        "add_generation_prompt": (None, True),
        "audio": (None,),
        "prediction": (None,),
        "verbosity": (None,),
        "web_search_options": (None,),
        "bad_words": (None,),
        "allowed_token_ids": (None,),
        "prompt_logprobs": (None,),
        "truncate_prompt_tokens": (None,),
        "chat_template": (None,),
        "n_predict": (None,),
        "n_probs": (None,),
        "samplers": (None,),
        "top_n_sigma": (None,),
        "dynatemp_range": (None,),
    }
)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class StreamOptions(Part):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Fields(Posted):
    """What every request that generates may carry. ``None`` is the same as leaving a field out."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = UNSUPPORTED
    framing: ClassVar[Framing] = Framing()

    model: ModelName = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: (
        Annotated[
            list[str], Field(max_length=MOST_STOPS), BeforeValidator(_as_list, json_schema_input_type=str | list[str])
        ]
        | None
    ) = None
    ignore_eos: bool | None = None
    seed: Annotated[int, Field(ge=-INT64, lt=INT64)] | None = None

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    top_p: UnitNotZero | None = None
    min_p: Unit | None = None
    typical_p: UnitNotZero | None = None
    repeat_penalty: Repeat | None = None
    repetition_penalty: Repeat | None = None
    repeat_last_n: LookBack | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    dry_multiplier: Annotated[float, Field(ge=0, le=100)] | None = None
    dry_base: Annotated[float, Field(ge=1, le=100)] | None = None
    dry_allowed_length: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    dry_penalty_last_n: LookBack | None = None
    dry_sequence_breakers: Annotated[list[str], Field(max_length=64)] | None = None
    xtc_probability: Unit | None = None
    xtc_threshold: Unit | None = None
    mirostat: Literal[0, 1, 2] | None = None
    mirostat_tau: Annotated[float, Field(gt=0, le=100)] | None = None
    mirostat_eta: Unit | None = None
    logit_bias: Annotated[dict[str, Bias], Field(max_length=MOST_BIASES)] | None = None

    # The shape of the answer: openai_output.py.
    response_format: dict[str, Any] | None = None
    json_schema: Any = None
    structured_outputs: Any = None
    grammar: Any = None
    regex: Any = None
    choice: Any = None
    guided_json: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None

    # Accepted and without effect here: labels for the caller's own books.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    parallel_tool_calls: bool | None = None
    keep_alive: Any = None

    @field_validator("stop", "dry_sequence_breakers")
    @classmethod
    def _short_texts(cls, texts: list[str] | None) -> list[str] | None:
        for text in texts or ():
            if not 1 <= len(text.encode()) <= MOST_STOP_BYTES:
                raise ValueError(f"each entry must have 1 to {MOST_STOP_BYTES} bytes")
        return texts

    @field_validator("mirostat", mode="before")
    @classmethod
    def _no_truth_for_numbers(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("input should be 0, 1 or 2")
        return value

    @property
    def choices(self) -> int:
        return self.n or 1

    @property
    def keep_alive_s(self) -> float | None:
        return seconds_of(self.keep_alive)

    @property
    def streams(self) -> bool:
        return bool(self.stream)

    @property
    def most_tokens(self) -> int | None:
        return self.max_tokens

    @property
    def includes_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def examine(self) -> None:
        self.output()
        seconds_of(self.keep_alive)

    def sampling(self) -> Sampling:
        """Only the fields that were sent; the others keep the model's defaults."""
        values = {name: value for name, value in self if name in Sampling.__dataclass_fields__ and value is not None}
        penalty = self._penalty()
        if penalty is not None:
            values["repeat_penalty"] = penalty
        if self.top_k == -1:  # what others write for "off"
            values["top_k"] = 0
        if self.dry_sequence_breakers is not None:
            values["dry_sequence_breakers"] = tuple(self.dry_sequence_breakers)
        if self.logit_bias is not None:
            values["logit_bias"] = self.biases()
        return Sampling(**values)

    def biases(self) -> dict[int, float]:
        """``logit_bias`` by token id."""
        return _token_ids(self.logit_bias or {})

    def output(self) -> Output | None:
        """The shape that the answer must have. Raises :class:`BadRequest` for one that makes no sense."""
        return output_of(dict(self))

    def _penalty(self) -> float | None:
        here, there = self.repeat_penalty, self.repetition_penalty
        if here is not None and there is not None and here != there:
            raise BadRequest(
                f"repeat_penalty ({here}) and repetition_penalty ({there}) are the same thing with two values",
                param="repetition_penalty",
            )
        return there if here is None else here

    def check(self, info: ModelInfo) -> None:
        """Raise :class:`BadRequest` for values that only the loaded model can tell to be wrong."""
        window = dict.fromkeys(WITHIN_WINDOW, info.context_length)
        for name, most in {**window, "top_k": info.vocabulary}.items():
            value = getattr(self, name, None)
            if value is not None and value > most:
                hint = WITHIN_WINDOW.get(name, "")
                raise BadRequest(f"{name} is {value}; with this model it is {most} at most", hint=hint, param=name)
        for token in self.sampling().logit_bias:
            if token >= info.vocabulary:
                raise BadRequest(f"logit_bias names token {token} of {info.vocabulary}", param="logit_bias")


def _token_ids(biases: Mapping[str, float]) -> dict[int, float]:
    for key in biases:
        if not (key.isascii() and key.isdecimal() and len(key) < 11):
            raise BadRequest(f"logit_bias: {key[:40]!r} is not a token id", param="logit_bias")
    return {int(key): bias for key, bias in biases.items()}
