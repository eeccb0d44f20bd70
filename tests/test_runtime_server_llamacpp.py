"""llama.cpp's own completions, and what its server answers without ``/v1``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from answers import HERMES
from fake_model import PIECES, FakeCatalog, Script
from ingle.runtime.server.surface import ROUTES
from served import Answered, Served, served


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(FakeCatalog("fake", script=Script(template=HERMES))) as running:
        yield running


def complete(server: Served, **fields: Any) -> Answered:
    return server.ask("POST", "/completion", {"prompt": "hi there"} | fields)


def asked(server: Served) -> dict[str, Any]:
    return server.model.works[-1].asked


def test_one_answer_whole_and_in_pieces(server: Served) -> None:
    whole = complete(server, n_predict=3).json
    assert (whole["content"], whole["stop"], whole["stop_type"]) == ("".join(PIECES[:3]), True, "limit")
    assert (whole["tokens"], whole["tokens_predicted"], whole["tokens_evaluated"]) == ([], 3, 2)
    assert (whole["truncated"], whole["has_new_line"], whole["prompt"]) == (False, False, "hi there")
    assert whole["generation_settings"]["n_predict"] == 3
    assert {key: whole["timings"][key] for key in ("cache_n", "prompt_n", "predicted_n", "predicted_per_second")} == {
        "cache_n": 1,
        "prompt_n": 1,
        "predicted_n": 3,
        "predicted_per_second": 8.0,  # the first token came with the prompt
    }
    streamed = complete(server, n_predict=3, stream=True)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    *pieces, last = (json.loads(line[6:]) for line in streamed.body.decode().splitlines() if line)
    assert [piece["content"] for piece in pieces] == list(PIECES[:3])
    assert [piece["tokens"] for piece in pieces] == [[0], [1], [2]]
    assert not any(piece["stop"] for piece in pieces)
    assert last == whole | {"content": "", "generation_settings": whole["generation_settings"] | {"stream": True}}
    assert complete(server, n_predict=-1).json["stop_type"] == "eos"


def test_prompts_as_texts_ids_and_mixtures(server: Served) -> None:
    assert complete(server, prompt=[1, "bb ccc", 4]).status == 200
    assert server.model.works[-1].prompt == (1, 2, 3, 4)
    assert complete(server, prompt={"prompt_string": "a b"}).json["prompt"] == "a b"
    several = complete(server, prompt=["a", [5, 6], {"prompt_string": "c"}]).json
    assert [one["index"] for one in several] == [0, 1, 2]
    assert [one["prompt"] for one in several] == ["a", [5, 6], "c"]
    assert [one["content"] for one in complete(server, n=2).json] == ["".join(PIECES)] * 2
    for wrong in ([], {}, {"prompt_string": 1}, [1.5], [1, True], [1, -1], [[]], 7, None):
        refused = complete(server, prompt=wrong)
        assert (refused.status, refused.error["param"].split("[")[0]) == (400, "prompt"), wrong
    assert complete(server, prompt=[1000]).error["param"] == "prompt"  # the model has 1000 tokens
    picture = complete(server, prompt={"prompt_string": "a", "multimodal_data": ["x"]})
    assert (picture.status, picture.error["code"]) == (400, "unsupported_parameter")


def test_only_some_fields_of_an_answer(server: Served) -> None:
    fields = ["content", "generation_settings/n_predict", "timings/predicted_n", "nothing"]
    found = complete(server, n_predict=2, response_fields=fields).json
    assert found == {"content": "Once upon", "generation_settings/n_predict": 2, "timings/predicted_n": 2}
    assert complete(server, n_predict=2, return_tokens=True).json["tokens"] == [0, 1]


def test_probabilities_of_the_tokens(server: Served) -> None:
    found = complete(server, n_predict=2, n_probs=3).json["completion_probabilities"]
    assert [one["token"] for one in found] == list(PIECES[:2])
    assert found[1]["id"] == 1 and found[1]["logprob"] == -1.0 and found[1]["bytes"] == list(b" upon")
    assert [other["id"] for other in found[1]["top_logprobs"]] == [1, 2, 3]
    streamed = complete(server, n_predict=2, n_probs=3, stream=True).body.decode().splitlines()
    assert json.loads(streamed[0][6:])["completion_probabilities"] == found[:1]


def test_biases_by_token_and_by_text(server: Served) -> None:
    complete(server, logit_bias=[[7, -1.5], ["bb ccc", 2], ["dddd", False]])
    assert asked(server)["sampling"].logit_bias == {7: -1.5, 2: 2.0, 3: 2.0, 4: -math.inf}
    complete(server, logit_bias={"7": -100, "bb": 1})
    assert asked(server)["sampling"].logit_bias == {7: -100.0, 2: 1.0}
    for wrong in (7, [7], [[7]], [[7, True]], [[7, 101]], [[-1, 1]], [[None, 1]], [[1, 1]] * 1025):
        refused = complete(server, logit_bias=wrong)
        assert (refused.status, refused.error["param"]) == (400, "logit_bias"), wrong
    assert complete(server, logit_bias=[[1000, 1]]).error["param"] == "logit_bias"


def test_what_is_asked_reaches_the_engine(server: Served) -> None:
    fields: dict[str, Any] = {"temperature": 0.25, "top_k": 7, "mirostat": 2, "seed": 5, "repeat_penalty": 1.5}
    answered = complete(server, **fields, stop=["x"], ignore_eos=True, cache_prompt=False, user="me", id_slot=0)
    assert answered.headers["x-ingle-ignored"] == "id_slot"
    sampling = asked(server)["sampling"]
    assert {name: getattr(sampling, name) for name in fields} == fields
    assert (asked(server)["stop"], asked(server)["ignore_eos"]) == (("x",), True)
    complete(server, seed=-1, json_schema={"type": "object"}, priority="background")
    assert asked(server)["priority"] == "background"
    assert (asked(server)["sampling"].seed, asked(server)["output"].shape) == (None, "json")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_predict", 0),
        ("n_predict", -2),
        ("n_predict", 513),
        ("n_probs", 21),
        ("post_sampling_probs", True),
        ("samplers", ["top_k"]),
        ("lora", [{"id": 0}]),
        ("t_max_predict_ms", 9),
        ("n_indent", 2),
        ("seed", -2),
    ],
)
def test_what_is_not_served_is_refused(server: Served, name: str, value: Any) -> None:
    refused = complete(server, **{name: value})
    assert (refused.status, refused.error["param"]) == (400, name)


def test_the_tokens_of_a_chat_are_counted(server: Served) -> None:
    body = {"messages": [{"role": "user", "content": "a bb ccc"}]}
    counted = server.ask("POST", "/v1/chat/completions/input_tokens", body)
    assert counted.json == {"object": "chat.completion.input_tokens", "input_tokens": 5}


def test_the_paths_without_v1_are_the_same(server: Served) -> None:
    for route in ROUTES:
        for path in route.also:
            body = {"messages": [{"role": "user", "content": "hi"}]} if "chat" in path else {"prompt": "hi"}
            body = {"input": "hi"} if path in ("/responses", "/embedding") else body
            answers = [server.ask(route.method, one, body if route.fields else None) for one in (route.path, path)]
            status = 400 if path == "/embedding" else 200  # this model continues texts
            assert [answer.status for answer in answers] == [status, status], path
            assert answers[0].json.keys() == answers[1].json.keys()


def test_a_request_without_a_model_gets_the_only_one(server: Served) -> None:
    assert complete(server).json["model"] == "fake"
    with served(FakeCatalog("fake", "other")) as two:
        refused = complete(two)
    assert (refused.status, refused.error["param"]) == (400, "model")
    assert "available: fake, other" in refused.error["message"]
