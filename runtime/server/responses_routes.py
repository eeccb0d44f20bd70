"""The routes below ``/v1/responses``."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from ...convert.errors import BadRequest
from .exchange import Exchange
from .openai_responses import InputTokensDialect, ResponsesDialect
from .responses_store import ResponsesStore


def responses_routes(app: FastAPI, exchange: Exchange) -> None:
    """Add them to ``app``, over a store of their own."""
    store = ResponsesStore()

    @app.post("/responses")
    @app.post("/v1/responses")
    async def responses(request: Request) -> Response:
        return await exchange.respond(request, ResponsesDialect(store))

    @app.post("/v1/responses/input_tokens")
    async def input_tokens(request: Request) -> Response:
        return await exchange.consult(request, InputTokensDialect(store))

    @app.get("/v1/responses/{name}")
    async def response(name: str) -> Response:
        return JSONResponse(store.find(name).response)

    @app.delete("/v1/responses/{name}")
    async def remove(name: str) -> Response:
        store.remove(name)
        return JSONResponse({"id": name, "object": "response", "deleted": True})

    @app.post("/v1/responses/{name}/cancel")
    async def cancel(name: str) -> Response:
        store.find(name)
        raise BadRequest("only responses in the background can be cancelled, and none are run so", param="response_id")

    @app.get("/v1/responses/{name}/input_items")
    async def input_items(name: str) -> Response:
        items = list(reversed(store.find(name).items))
        data = [{"id": f"item_{len(items) - place}", **item} for place, item in enumerate(items)]
        ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": "", "last_id": ""}
        return JSONResponse({"object": "list", "data": data, "has_more": False, **ends})
