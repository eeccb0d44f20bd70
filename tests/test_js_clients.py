"""The JavaScript clients of OpenAI and Ollama against a real server. ``make js-test`` installs and runs them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from answers import EXAMPLES, TOOLS
from fake_model import FakeCatalog, Script
from served import Served, served

pytestmark = pytest.mark.node
HERE = Path(__file__).parent
PACKAGES = HERE.parent / "build" / "js"
EXAMPLE = EXAMPLES["hermes with words"]
MESSAGES = [{"role": "user", "content": "How is the weather?"}]
FIELDS = {
    "messages": MESSAGES,
    "tools": TOOLS,
    "flatTools": [{"type": "function", "strict": False, **tool["function"]} for tool in TOOLS],
}


def result(client: str, server: Served) -> Any:
    """What the program of a client prints. Without Node.js or the client this fails: it was asked for by its mark."""
    node = shutil.which("node")
    if node is None or not (PACKAGES / "node_modules" / client).is_dir():
        pytest.fail("Node.js 20 and the clients are needed: apt install nodejs npm, then make js-test")
    command = [node, str(HERE / "js" / f"{client}.mjs"), str(PACKAGES), server.url, json.dumps(FIELDS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def server() -> Any:
    pieces = tuple(EXAMPLE.text[at : at + 3] for at in range(0, len(EXAMPLE.text), 3))
    with served(FakeCatalog("fake", "org/other", script=Script(pieces, template=EXAMPLE.template))) as running:
        yield running


def test_openai(server: Served) -> None:
    found = result("openai", server)
    calls = [[call.name, call.arguments] for call in EXAMPLE.calls]
    assert found["models"] == ["fake", "org/other"]
    assert found["whole"] == found["streamed"] == [EXAMPLE.content, calls, "tool_calls"]
    assert found["completionTokens"] > 0
    assert found["response"] == found["finished"] == calls
    assert found["next"] == ["completed", True] and found["lastKind"] == "response.completed"
    assert found["refused"] == [404, "model_not_found", "model"]
    given = server.model.works[4].prompt
    assert [message["role"] for message in given] == ["user", "assistant", "tool", "tool"]


def test_ollama(server: Served) -> None:
    found = result("ollama", server)
    calls = [[call.name, json.loads(call.arguments)] for call in EXAMPLE.calls]
    assert found["models"] == ["fake", "org/other"] and found["running"] == ["fake"]
    assert found["whole"] == found["streamed"] == [EXAMPLE.content, calls, "stop"]
    assert found["counts"][0] == found["counts"][1] > 0
    assert found["written"].startswith(EXAMPLE.content)
    assert found["refused"][0] == 404 and "there is no model 'nobody' here" in found["refused"][1]
