"""The FastAPI application: the routes, and the middleware that each request passes."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from .errors import install
from .exchange import Exchange
from .metrics import CONTENT_TYPE
from .openai_chat import ChatRequest
from .openai_completions import CompletionRequest
from .openai_embeddings import EmbeddingRequest
from .openai_models import entry, listing
from .security import Gate, Rules
from .task_bodies import ClassifyRequest, Embed, Predict, Rerank, RerankRequest, TaskRequest
from .tasking import Tasking
from .traffic import Doors, Traffic


def create_app(exchange: Exchange, rules: Rules, traffic: Traffic) -> FastAPI:
    """An ASGI app. A request meets :class:`Doors` first, then :class:`Gate`, then a route below."""
    app = FastAPI(title="ingle", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_middleware(Gate, rules=rules)
    app.add_middleware(Doors, traffic=traffic, metrics=exchange.metrics)
    install(app)
    pool = exchange.pool
    tasking = Tasking(pool, exchange.strict)

    @app.get("/health")
    async def health() -> Response:
        if traffic.draining:
            return JSONResponse({"status": "draining"}, 503)
        return JSONResponse({"status": "ok"})

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(exchange.metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse(listing(await pool.installed(), pool.loaded()))

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        installed = await pool.find(name)
        return JSONResponse(entry(installed, pool.loaded().get(installed.place)))

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        return await exchange.respond(request, ChatRequest)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await exchange.respond(request, CompletionRequest)

    @app.post("/v1/embeddings")
    async def embeddings(request: Request) -> Response:
        return await tasking.respond(request, EmbeddingRequest)

    @app.post("/v1/rerank")
    async def rerank(request: Request) -> Response:
        return await tasking.respond(request, RerankRequest)

    @app.post("/v1/classify")
    async def classify(request: Request) -> Response:
        return await tasking.respond(request, ClassifyRequest)

    @app.post("/v1/tasks/{task}")
    async def task(request: Request, task: str) -> Response:
        return await tasking.respond(request, TaskRequest, task=task)

    @app.post("/embed")
    async def tei_embed(request: Request) -> Response:
        return await tasking.respond(request, Embed)

    @app.post("/rerank")
    async def tei_rerank(request: Request) -> Response:
        return await tasking.respond(request, Rerank)

    @app.post("/predict")
    async def tei_predict(request: Request) -> Response:
        return await tasking.respond(request, Predict)

    return app
