"""All that the server answers: each route and the fields of its request, for OpenAPI and the page at ``/docs``."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from .anthropic_messages import CountRequest, MessagesRequest
from .extras import ApplyTemplateRequest, DetokenizeRequest, TokenizeRequest
from .extras import CountRequest as ChatCountRequest
from .llamacpp_completion import CompletionRequest as LlamaCompletionRequest
from .llamacpp_embedding import EmbeddingRequest as LlamaEmbeddingRequest
from .ollama_chat import ChatRequest as OllamaChatRequest
from .ollama_chat import GenerateRequest
from .ollama_embed import EmbedRequest, OldEmbedRequest
from .ollama_models import NameRequest
from .openai_chat import ChatRequest
from .openai_completions import CompletionRequest
from .openai_embeddings import EmbeddingRequest
from .openai_responses import InputTokens, ResponsesRequest
from .posted import Part
from .task_bodies import ClassifyRequest, Embed, Predict, Rerank, RerankRequest, TaskRequest


@dataclass(frozen=True, slots=True)
class Route:
    """``fields``: the class of its body; None for one without. ``also``: other paths that are the same."""

    method: str
    path: str
    says: str
    fields: type[Part] | None = None
    also: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """All fields that are known, those that are refused included."""
        if self.fields is None:
            return []
        refused = getattr(self.fields, "unsupported", {})
        return list(dict.fromkeys([*self.fields.model_fields, *refused]))


ROUTES = (
    Route("GET", "/", "a page to chat on"),
    Route("GET", "/page/{file}", "its style, its script, its icon"),
    Route("GET", "/health", "whether the server takes requests"),
    Route("GET", "/metrics", "figures for Prometheus"),
    Route("GET", "/openapi.json", "this, for programs"),
    Route("GET", "/docs", "this, for people"),
    Route("GET", "/v1/models", "the installed models", also=("/models",)),
    Route("GET", "/v1/models/{name}", "one of them"),
    Route("POST", "/v1/chat/completions", "a chat", ChatRequest, also=("/chat/completions",)),
    Route(
        "POST",
        "/v1/chat/completions/input_tokens",
        "the tokens of a chat counted",
        ChatCountRequest,
        also=("/chat/completions/input_tokens",),
    ),
    Route("POST", "/v1/completions", "a text continued", CompletionRequest),
    Route("POST", "/v1/embeddings", "texts as vectors", EmbeddingRequest),
    Route("POST", "/v1/rerank", "documents by their relevance", RerankRequest),
    Route("POST", "/v1/classify", "texts labelled", ClassifyRequest),
    Route("POST", "/v1/tasks/{task}", "any task of a model that reads", TaskRequest),
    Route("POST", "/embed", "texts as vectors, as text-embeddings-inference has it", Embed),
    Route("POST", "/rerank", "texts by their relevance, as text-embeddings-inference has it", Rerank),
    Route("POST", "/predict", "texts labelled, as text-embeddings-inference has it", Predict),
    Route("POST", "/v1/responses", "a chat as items", ResponsesRequest, also=("/responses",)),
    Route("GET", "/v1/responses/{name}", "a response again"),
    Route("DELETE", "/v1/responses/{name}", "a response forgotten"),
    Route("POST", "/v1/responses/{name}/cancel", "refused: none run in the background"),
    Route("GET", "/v1/responses/{name}/input_items", "the conversation before a response"),
    Route("POST", "/v1/responses/input_tokens", "the tokens of a chat counted", InputTokens),
    Route("POST", "/v1/messages", "a chat, Anthropic's way", MessagesRequest),
    Route("POST", "/v1/messages/count_tokens", "its tokens counted", CountRequest),
    Route("POST", "/api/chat", "a chat, Ollama's way", OllamaChatRequest),
    Route("POST", "/api/generate", "a prompt answered; without one, a model loaded or given up", GenerateRequest),
    Route("POST", "/api/embed", "texts as vectors", EmbedRequest),
    Route("POST", "/api/embeddings", "a text as a vector, the older way", OldEmbedRequest),
    Route("GET", "/api/tags", "the installed models"),
    Route("GET", "/api/ps", "those in memory"),
    Route("GET", "/api/version", "the version of ingle"),
    Route("POST", "/api/show", "what a model's file says", NameRequest),
    Route("POST", "/api/pull", "fetch and build a model, under --admin", NameRequest),
    Route("DELETE", "/api/delete", "remove a model, under --admin", NameRequest),
    Route(
        "POST",
        "/completion",
        "a text continued, as llama.cpp's server has it",
        LlamaCompletionRequest,
        also=("/completions",),
    ),
    Route(
        "POST",
        "/embeddings",
        "texts as vectors, or as one a token, as llama.cpp's server has it",
        LlamaEmbeddingRequest,
        also=("/embedding",),
    ),
    Route("POST", "/tokenize", "a text as token ids", TokenizeRequest),
    Route("POST", "/detokenize", "token ids as a text", DetokenizeRequest),
    Route("POST", "/apply-template", "a chat as its prompt", ApplyTemplateRequest),
)


def openapi() -> dict[str, Any]:
    """The routes as OpenAPI 3.1."""
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    info = {"title": "ingle", "version": metadata.version("ingle")}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": route.says, "responses": {"200": {"description": "the answer"}}}
    operation["responses"]["4XX"] = {"description": "what is wrong with the request, by the name of the field"}
    if places := re.findall(r"{(\w+)}", route.path):
        operation["parameters"] = [
            {"name": place, "in": "path", "required": True, "schema": {"type": "string"}} for place in places
        ]
    if route.fields is not None:
        title = f"{route.fields.__module__.rsplit('.', 1)[-1]}.{route.fields.__name__}"
        schema = route.fields.model_json_schema(ref_template="#/components/schemas/" + title + ".{model}")
        schemas |= {f"{title}.{name}": inner for name, inner in schema.pop("$defs", {}).items()}
        schemas[title] = schema
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{title}"}}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def page() -> str:
    """The routes as a page: no script, nothing from elsewhere."""
    return "".join(_page())


def _page() -> Iterator[str]:
    yield "<!doctype html><html lang=en><meta charset=utf-8><title>ingle</title><style>"
    yield "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    yield ":root{color-scheme:light dark}"
    yield "code{font-size:.95em}h2{margin-top:2rem}li{display:inline-block;margin-right:1rem}ul{padding:0}</style>"
    yield "<h1>ingle</h1><p>The same for programs: <a href=/openapi.json>openapi.json</a>.</p>"
    for route in ROUTES:
        yield f"<h2><code>{route.method} {html.escape(route.path)}</code></h2><p>{html.escape(route.says)}</p>"
        if route.names:
            yield "<ul>" + "".join(f"<li><code>{html.escape(name)}</code></li>" for name in route.names) + "</ul>"
    yield "</html>"
