"""The routes below ``/api/``: Ollama's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from ..request import Usage
from .body import read_json
from .exchange import Exchange
from .keeping import of_header
from .ollama_chat import ChatRequest, GenerateRequest
from .ollama_embed import EmbedRequest, OldEmbedRequest
from .ollama_fields import FRAMING, figures, now
from .ollama_models import NameRequest, allow, last_of, pulled, running, show, tags, version
from .sse import EventStream
from .tasking import Tasking


def ollama_routes(app: FastAPI, exchange: Exchange, tasking: Tasking, *, admin: bool) -> None:
    """Add them to ``app``. ``admin``: clients may fetch and delete models."""
    pool = exchange.pool

    def _named(body: Mapping[str, Any]) -> NameRequest:
        asked = NameRequest.parse(body)
        asked.ignored(exchange.strict)
        return asked

    @app.get("/api/version")
    async def api_version() -> Response:
        return JSONResponse(version())

    @app.get("/api/tags")
    async def api_tags() -> Response:
        return JSONResponse(tags(await pool.installed(), pool.loaded()))

    @app.get("/api/ps")
    async def api_ps() -> Response:
        return JSONResponse(running(await pool.installed(), pool.loaded(), pool.expiry()))

    @app.post("/api/show")
    async def api_show(request: Request) -> Response:
        asked = _named(await read_json(request))
        return JSONResponse(await asyncio.to_thread(show, await pool.find(asked.model)))

    @app.post("/api/chat")
    async def api_chat(request: Request) -> Response:
        return await exchange.respond(request, ChatRequest)

    @app.post("/api/generate")
    async def api_generate(request: Request) -> Response:
        body = await read_json(request)
        asked = GenerateRequest.parse(body)
        return await (
            _load(exchange, asked, of_header(request))
            if asked.only_loads
            else exchange.respond(request, GenerateRequest, body)
        )

    @app.post("/api/embed")
    async def api_embed(request: Request) -> Response:
        return await tasking.respond(request, EmbedRequest)

    @app.post("/api/embeddings")
    async def api_embeddings(request: Request) -> Response:
        return await tasking.respond(request, OldEmbedRequest)

    @app.post("/api/pull")
    async def api_pull(request: Request) -> Response:
        asked = _named(await read_json(request))
        allow(admin)
        events = pulled(pool.catalog, asked.model)
        if asked.stream is False:
            return JSONResponse(await last_of(events))
        return EventStream(events, _nothing, framing=FRAMING)

    @app.delete("/api/delete")
    async def api_delete(request: Request) -> Response:
        asked = _named(await read_json(request))
        allow(admin)
        await pool.forget(asked.model)
        return PlainTextResponse("")


async def _load(exchange: Exchange, asked: GenerateRequest, header: float | None) -> Response:
    """No prompt: the model is loaded, or given up when it is to be kept for no time at all."""
    keep_s = header if asked.keep_alive_s is None else asked.keep_alive_s
    installed = await exchange.pool.find(asked.model)
    if keep_s == 0:
        exchange.pool.keep(installed.place, 0)
    else:
        (await exchange.pool.lease(installed.name, keep_s)).release()
    answer: dict[str, Any] = {"model": installed.name, "created_at": now(), "response": ""}
    return JSONResponse(answer | figures(Usage(), "unload" if keep_s == 0 else "load"))


def _nothing() -> None:
    """A pull goes on without its listener."""
