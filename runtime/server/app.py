"""The FastAPI application: the routes, and the middleware that each request passes."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from .anthropic_messages import CountRequest, MessagesRequest
from .chat_page import page_routes
from .errors import install
from .exchange import Exchange
from .extras import ApplyTemplateRequest, DetokenizeRequest, TokenizeRequest
from .extras import CountRequest as ChatCountRequest
from .llamacpp_completion import CompletionRequest as LlamaCompletionRequest
from .llamacpp_embedding import EmbeddingRequest as LlamaEmbeddingRequest
from .metrics import CONTENT_TYPE
from .ollama_routes import ollama_routes
from .openai_chat import ChatRequest
from .openai_completions import CompletionRequest
from .openai_embeddings import EmbeddingRequest
from .openai_models import entry, listing
from .responses_routes import responses_routes
from .security import Gate, Rules
from .surface import openapi, page
from .task_bodies import ClassifyRequest, Embed, Predict, Rerank, RerankRequest, TaskRequest
from .tasking import Tasking
from .traffic import Doors, Traffic


def create_app(exchange: Exchange, rules: Rules, traffic: Traffic, *, admin: bool = False) -> FastAPI:
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
        if traffic.loading:
            return JSONResponse({"status": "loading"}, 503)
        return JSONResponse({"status": "ok"})

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(exchange.metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/openapi.json")
    async def described() -> Response:
        return JSONResponse(openapi())

    @app.get("/docs")
    async def docs() -> Response:
        return HTMLResponse(page())

    @app.get("/models")
    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse(listing(await pool.installed(), pool.loaded(), pool.expiry(), pool.states()))

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        installed = await pool.find(name)
        place = installed.place
        found = pool.loaded().get(place), pool.expiry().get(place), pool.states().get(place)
        return JSONResponse(entry(installed, *found))

    @app.post("/chat/completions/input_tokens")
    @app.post("/v1/chat/completions/input_tokens")
    async def chat_input_tokens(request: Request) -> Response:
        return await exchange.consult(request, ChatCountRequest)

    @app.post("/chat/completions")
    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        return await exchange.respond(request, ChatRequest)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await exchange.respond(request, CompletionRequest)

    @app.post("/completion")
    @app.post("/completions")
    async def llamacpp_completion(request: Request) -> Response:
        return await exchange.respond(request, LlamaCompletionRequest)

    @app.post("/v1/embeddings")
    async def embeddings(request: Request) -> Response:
        return await tasking.respond(request, EmbeddingRequest)

    @app.post("/embedding")
    @app.post("/embeddings")
    async def llamacpp_embedding(request: Request) -> Response:
        return await tasking.respond(request, LlamaEmbeddingRequest)

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

    @app.post("/tokenize")
    async def tokenize(request: Request) -> Response:
        return await exchange.consult(request, TokenizeRequest)

    @app.post("/detokenize")
    async def detokenize(request: Request) -> Response:
        return await exchange.consult(request, DetokenizeRequest)

    @app.post("/apply-template")
    async def apply_template(request: Request) -> Response:
        return await exchange.consult(request, ApplyTemplateRequest)

    @app.post("/v1/messages")
    async def messages(request: Request) -> Response:
        return await exchange.respond(request, MessagesRequest)

    @app.post("/v1/messages/count_tokens")
    async def count_tokens(request: Request) -> Response:
        return await exchange.consult(request, CountRequest)

    page_routes(app)
    responses_routes(app, exchange)
    ollama_routes(app, exchange, tasking, admin=admin)
    return app
