"""Errors that leave the server: OpenAI's ``{"error": {message, type, param, code}}``, Anthropic's, Ollama's.

BadRequest
├── UnsupportedParameter   a field we know and do not serve     400
├── UnknownParameter       a field nobody knows, under --strict 400
├── InvalidKey             the API key is missing or wrong      401
├── Forbidden              a foreign Host or Origin             403
├── NoSuchRoute            404
├── NoSuchMethod           405
├── TooSlow                the body did not arrive in time      408
├── BodyTooLarge           413
├── AddressTooLong         414
└── HeadersTooLarge        431
EngineError
└── Overloaded             too many connections, or draining    503 + Retry-After
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from ...convert.errors import BadRequest, ContextLengthExceeded, EngineError, IngleError

log = logging.getLogger("ingle.server")

ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    503: "overloaded_error",
}
TYPES = {401: "authentication_error", 403: "permission_error"}
SHOWN_INPUT = 60
RETRY_AFTER_S = 1


class UnsupportedParameter(BadRequest):
    code = "unsupported_parameter"


class UnknownParameter(BadRequest):
    code = "unknown_parameter"


class InvalidKey(BadRequest):
    code = "invalid_api_key"
    status = 401


class Forbidden(BadRequest):
    code = "forbidden"
    status = 403


class NoSuchRoute(BadRequest):
    code = "unknown_url"
    status = 404


class NoSuchMethod(BadRequest):
    code = "method_not_supported"
    status = 405


class TooSlow(BadRequest):
    code = "request_timeout"
    status = 408


class BodyTooLarge(BadRequest):
    code = "request_too_large"
    status = 413


class AddressTooLong(BadRequest):
    code = "uri_too_long"
    status = 414


class HeadersTooLarge(BadRequest):
    code = "headers_too_large"
    status = 431


class Overloaded(EngineError):
    code = "overloaded"
    status = 503


def payload(error: IngleError) -> dict[str, Any]:
    """The JSON of an error. A prompt that is too long carries its numbers under ``ingle``."""
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    body: dict[str, Any] = {"message": message, "type": _type(error.status), "param": error.param, "code": error.code}
    if isinstance(error, ContextLengthExceeded):
        body["ingle"] = {"prompt_tokens": error.prompt_tokens, "context_window": error.context_window}
    return {"error": body}


def anthropic_payload(error: IngleError) -> dict[str, Any]:
    """Anthropic's shape of an error."""
    message = payload(error)["error"]["message"]
    kind = ANTHROPIC_TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


def ollama_payload(error: IngleError) -> dict[str, Any]:
    """Ollama's shape of an error."""
    return {"error": payload(error)["error"]["message"]}


def response(error: IngleError, path: str = "") -> JSONResponse:
    """The answer to a request for ``path`` that failed, in the shape of its dialect."""
    shape = next((shape for prefix, shape in SHAPES.items() if path.startswith(prefix)), payload)
    return JSONResponse(shape(error), error.status, headers=_headers(error))


SHAPES: Mapping[str, Callable[[IngleError], dict[str, Any]]] = {
    "/v1/messages": anthropic_payload,
    "/api/": ollama_payload,
}


def _type(status: int) -> str:
    return TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")


def _headers(error: IngleError) -> Mapping[str, str]:
    if error.status == 503:
        return {"Retry-After": str(getattr(error, "retry_after_s", RETRY_AFTER_S))}
    if error.status == 401:
        return {"WWW-Authenticate": "Bearer"}
    if error.status in (408, 413):  # what is left of the body is not worth reading
        return {"Connection": "close"}
    return {}


def of_validation(error: ValidationError) -> BadRequest:
    """The first fault that pydantic found, by the path of its field: ``messages[0].content``."""
    first = error.errors(include_url=False)[0]
    field = path(first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    if first["type"] == "missing":
        return BadRequest(f"{field} is missing", param=field)
    return BadRequest(f"{field}: {reason} (got {shown(first['input'])})", param=field)


def path(location: tuple[int | str, ...]) -> str:
    """``("messages", 0, "content")`` -> ``messages[0].content``."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".") or "body"


def shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_INPUT else text[: SHOWN_INPUT - 1] + "…"


def internal() -> IngleError:
    return IngleError("the server failed while answering this request", hint="the server's log has the details")


def install(app: FastAPI) -> None:
    """Answer what the routes of ``app`` raise in the one shape; :class:`.traffic.Doors` answers what is unexpected."""

    @app.exception_handler(IngleError)
    async def ours(request: Request, error: IngleError) -> JSONResponse:
        if error.status >= 500:
            log.error("%s: %s", type(error).__name__, error)
        return response(error, request.url.path)

    @app.exception_handler(HTTPException)
    async def routing(request: Request, error: HTTPException) -> JSONResponse:
        return response(_of_routing(request, error.status_code), request.url.path)


def _of_routing(request: Request, status: int) -> IngleError:
    if status == 405:
        return NoSuchMethod(f"{request.method} is not served at {request.url.path}")
    if status == 404:
        return NoSuchRoute(
            f"there is no {request.method} {request.url.path} here",
            hint="GET /docs lists what is served",
        )
    return internal()
