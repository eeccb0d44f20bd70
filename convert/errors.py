"""The error tree of ingle: every failure a person can meet has its place here.

    IngleError
    ├── InputError                what was asked for cannot be done as asked        exit 2, HTTP 400
    │   ├── BadCheckpoint         a checkpoint folder is broken or incomplete
    │   ├── UnsupportedModel      a checkpoint that this version cannot convert
    │   ├── BadGGUF               a GGUF file is broken
    │   ├── UnknownType           no such quantization or storage type
    │   ├── BadName               a model name that cannot be parsed
    │   ├── BadRequest            a request field is wrong (``param`` names it)
    │   │   └── ContextLengthExceeded
    │   ├── TemplateError         a chat template is missing, broken or refused the messages
    │   └── ModelNotFound         nothing of that name here                         HTTP 404
    ├── VerificationFailed        the GGUF differs from its checkpoint              exit 3
    ├── HubError                  the hub did not give what was asked               exit 4, HTTP 502
    ├── StorageError              disk, lock or file trouble                        exit 5, HTTP 507
    │   ├── DiskFull
    │   ├── StoreBusy             another process holds the lock
    │   └── ChecksumMismatch      bytes are not what they were                      HTTP 500
    └── EngineError               the engine could not do its work                  exit 6, HTTP 500
        ├── LoadFailed            a model could not be loaded
        ├── EngineCrashed         the engine process died                           HTTP 503
        ├── QueueFull             too many requests are waiting                     HTTP 503 + Retry-After
        ├── EngineClosed          the engine is shut down                           HTTP 503
        └── Cancelled             the request was cancelled by its owner            HTTP 499

A message says what happened and with which value; ``hint`` says what to do next.
"""

from __future__ import annotations

from typing import ClassVar


class IngleError(Exception):
    """Base of all errors of ingle. Survives pickling, so it can cross a process border."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "", param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.param = param

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class InputError(IngleError):
    code = "invalid_input"
    status = 400
    exit_code = 2


class BadCheckpoint(InputError):
    code = "bad_checkpoint"


class UnsupportedModel(InputError):
    code = "unsupported_model"


class BadGGUF(InputError):
    code = "bad_gguf"


class UnknownType(InputError):
    code = "unknown_type"


class BadName(InputError):
    code = "bad_name"


class BadRequest(InputError):
    code = "invalid_request"


class ContextLengthExceeded(BadRequest):
    """A prompt that does not fit the window; it is never cut."""

    code = "context_length_exceeded"

    def __init__(self, message: str, *, hint: str = "", param: str | None = None) -> None:
        super().__init__(message, hint=hint, param=param)
        self.prompt_tokens = 0
        self.context_window = 0

    @classmethod
    def of(cls, prompt_tokens: int, context_window: int, *, at_least: bool = False) -> ContextLengthExceeded:
        """``context_window`` counts prompt and answer together; an answer needs one token at least."""
        error = cls(
            f"the prompt has {'at least ' if at_least else ''}{prompt_tokens} tokens; this model is loaded with a "
            f"context window of {context_window}, which leaves room for a prompt of {context_window - 1}",
            hint="shorten the prompt, or load the model with a larger context length (--ctx) if it was trained for one",
            param="messages",
        )
        error.prompt_tokens = prompt_tokens
        error.context_window = context_window
        return error


class TemplateError(InputError):
    code = "template_failed"


class ModelNotFound(InputError):
    code = "model_not_found"
    status = 404


class VerificationFailed(IngleError):
    code = "verification_failed"
    exit_code = 3


class HubError(IngleError):
    code = "hub_error"
    status = 502
    exit_code = 4


class StorageError(IngleError):
    code = "storage_error"
    status = 507
    exit_code = 5


class DiskFull(StorageError):
    code = "disk_full"


class StoreBusy(StorageError):
    code = "store_busy"


class ChecksumMismatch(StorageError):
    code = "checksum_mismatch"
    status = 500


class EngineError(IngleError):
    code = "engine_error"
    exit_code = 6


class LoadFailed(EngineError):
    code = "load_failed"


class EngineCrashed(EngineError):
    code = "engine_crashed"
    status = 503


class EngineClosed(EngineError):
    code = "engine_closed"
    status = 503


class QueueFull(EngineError):
    code = "queue_full"
    status = 503
    retry_after_s: ClassVar[int] = 2


class Cancelled(EngineError):
    code = "cancelled"
    status = 499
