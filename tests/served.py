"""A real server on 127.0.0.1 in a thread of the test, with fake models behind it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import openai
from fake_model import FakeCatalog, FakeModel
from ingle.runtime.server.listening import ServeOptions, listen
from ingle.runtime.server.serve import Stop, run

PATIENCE_S = 20.0


@dataclass(frozen=True)
class Answered:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]


@dataclass
class Served:
    """A running server. ``ask`` speaks plain HTTP, ``client`` is OpenAI's own."""

    url: str
    catalog: FakeCatalog

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def model(self) -> FakeModel:
        return self.catalog.model

    def client(self, **settings: Any) -> openai.OpenAI:
        settings = {"api_key": "any", "max_retries": 0, "timeout": PATIENCE_S} | settings
        return openai.OpenAI(base_url=f"{self.url}/v1", **settings)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Answered:
        """One request on a connection of its own."""
        data = json.dumps(body).encode() if raw is None and body is not None else raw
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
            response = connection.getresponse()
            return Answered(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def chat(self, **fields: Any) -> Answered:
        body = {"model": "fake", "messages": [{"role": "user", "content": "hi there"}]} | fields
        return self.ask("POST", "/v1/chat/completions", body)

    def complete(self, **fields: Any) -> Answered:
        return self.ask("POST", "/v1/completions", {"model": "fake", "prompt": "hi there"} | fields)


@contextlib.contextmanager
def served(catalog: FakeCatalog, options: ServeOptions | None = None) -> Iterator[Served]:
    """A server that has loaded the models of ``catalog`` named first, while the block runs."""
    options = options or ServeOptions(port=0)
    listener = listen(options)
    ready, state = threading.Event(), {}

    async def main() -> None:
        state["loop"], state["stop"] = asyncio.get_running_loop(), Stop()
        await run(
            listener,
            options,
            catalog,
            catalog.names[:1],
            lambda url: (state.update(url=url), ready.set()),
            state["stop"],
        )

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert ready.wait(PATIENCE_S)
        yield Served(state["url"], catalog)
    finally:
        state["loop"].call_soon_threadsafe(state["stop"].ask)
        state["loop"].call_soon_threadsafe(state["stop"].ask)
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
