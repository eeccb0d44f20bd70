"""What crosses the rooms of the runtime: a request on its way in, deltas on their way out. Frozen, picklable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length"]
Priority = Literal["interactive", "normal", "background"]
StopDetail = Literal["eos", "stop_string", "max_tokens", "context_window"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. ``None`` means the model's own default (see ``ModelInfo.sampling``).

    The chain runs in the customary order of llama.cpp: logit bias, penalties, DRY, top-k, typical, top-p, min-p, XTC,
    temperature, draw; mirostat replaces what follows the penalties. ``temperature`` 0 is greedy.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    mirostat: Literal[0, 1, 2] = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Constraint:
    """What the answer must match, to its end: a grammar of llguidance (Lark, or several as JSON).

    param: the request's field that it was made of, for an error that names it.
    """

    grammar: str
    param: str = "grammar"


@dataclass(frozen=True, slots=True)
class Image:
    """The bytes of a picture's file, and the field they came in, which errors name."""

    data: bytes = field(repr=False)
    where: str = "images"


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt and how to continue it.

    prompt: text, or token ids that are used as they are.
    images: pictures, in the order in which ``image_text`` stands for them in the text of the prompt.
    add_special: whether the tokenizer adds its BOS/EOS to a text prompt; False for a rendered chat template.
    parse_special: whether the text of a control token in the prompt becomes that token.
    max_tokens: most tokens of each choice; None ends at the context window.
    logprobs: None for none, else how many alternatives (0-20) are reported beside each token.
    n: choices; they share the prompt's KV cells.
    adapters: names of the loaded adapters to answer with; None is all of them, an empty tuple the model without any.
    cuts: places in a text prompt, in characters, that no token reaches across: what would be a control token is text.
    markers: control tokens in this text show in the answer as text; the others have none.
    constraint: masks the tokens that would break it, before the sampler sees them.
    priority: whose turn it is where not all can be served: interactive prompts are read first, and background work
    computes only while nobody else does.
    owner: requests of one owner find what the prefix cache has of each other's prompts, and of nobody else's.
    """

    prompt: str | tuple[int, ...]
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    n: int = 1
    ignore_eos: bool = False
    add_special: bool = True
    parse_special: bool = True
    images: tuple[Image, ...] = ()
    image_text: str = ""
    adapters: tuple[str, ...] | None = None
    cuts: tuple[int, ...] = ()
    markers: str = ""
    constraint: Constraint | None = None
    priority: Priority = "normal"
    owner: str = ""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token, its bytes and ``ln p`` under the model's own distribution, before any sampler touched it."""

    token: int
    piece: bytes
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and seconds of one request, over all its choices. ``cached_tokens`` of the prompt were not evaluated.

    drafted_tokens: were foretold and computed beside others, ``accepted_tokens`` of them were right.
    model_drafted_tokens: of these, the ones that a draft model foretold; the text itself foretold the others.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    model_drafted_tokens: int = 0
    model_accepted_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of one choice. ``text`` is whole characters only; the last delta of a choice has ``finish_reason``."""

    index: int
    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    stop_detail: StopDetail | None = None


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """An adapter beside a model. ``base`` is the model that it was made for, as its file has it; may be empty."""

    name: str
    path: str
    scale: float
    base: str


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes that a loaded model takes of the memory.

    weights: of the file and of what is loaded beside it, once. kv: the cells of the cache. states: of recurrent layers.
    compute: the graph of a step. outputs: a row of logits for each answer. program: code, vocabulary, and the rest.
    draft: all of these that a draft model takes.
    """

    weights: int
    kv: int
    states: int
    compute: int
    outputs: int
    program: int
    draft: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.states + self.compute + self.outputs + self.program + self.draft


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is true of a loaded model: read from the file, or decided when it was loaded.

    context_trained, context_length: the window it was trained with, and the one it is loaded with.
    context_reason: why ``context_length`` is what it is.
    flash_attention: "auto" where llama.cpp decides.
    chat_templates: by name; the one of ordinary chats is ``default``. Empty for a base model.
    special_tokens: ``bos_token``, ``eos_token``, ... as text, as a chat template expects them.
    control_tokens: ids by text of the tokens that only templates write, and no text may forge.
    sampling: the model's own defaults (from generation_config), completed with ours; no ``None`` in it.
    gpu_layers: layers that really are offloaded.
    projector: file of the vision part; empty where the model reads text only.
    draft: file of the draft model; empty without one.
    repacked: whether weights may be laid out anew for the CPU's fastest kernels.
    footprint: what it takes of the memory, as it was counted before it was loaded.
    adapters: what requests may be answered with, see ``Request.adapters``.
    """

    name: str
    path: str
    architecture: str
    parameters: int
    size_bytes: int
    vocabulary: int
    context_trained: int
    context_length: int
    context_reason: str
    kv_cells: int
    kv_bytes: int
    flash_attention: Literal["auto", "on", "off"]
    parallel: int
    threads: int
    threads_prefill: int
    gpu_layers: int
    chat_templates: Mapping[str, str]
    special_tokens: Mapping[str, str]
    eog_tokens: tuple[int, ...]
    sampling: Sampling
    warnings: tuple[str, ...] = ()
    projector: str = ""
    draft: str = ""
    adapters: tuple[LoadedAdapter, ...] = ()
    repacked: bool = True
    footprint: Footprint | None = None
    control_tokens: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters since the engine started, and gauges of now. Source of ``/metrics``.

    resident_bytes: of the process that the engine runs in; 0 where the system does not say.
    draft_model_s: seconds that a draft model took to read and to foretell.
    resting: whether the cache is given back until the next request.
    """

    steps: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    evaluated_tokens: int = 0
    generated_tokens: int = 0
    requests: int = 0
    cancelled: int = 0
    failed: int = 0
    preempted: int = 0
    aborted_steps: int = 0
    yielded_steps: int = 0
    running: int = 0
    waiting: int = 0
    kv_used: int = 0
    kv_cells: int = 0
    parked_bytes: int = 0
    parked_tokens: int = 0
    step_s: float = 0.0
    prompt_row_s: float = 0.0
    disk_bytes: int = 0
    disk_tokens: int = 0
    resident_bytes: int = 0
    busy_s: float = 0.0
    kernel_cpu_s: float = 0.0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    forced_tokens: int = 0
    model_drafted_tokens: int = 0
    model_accepted_tokens: int = 0
    draft_model_s: float = 0.0
    resting: bool = False
