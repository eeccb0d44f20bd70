"""Special ids, the stop set, what is put around a text, and where chat templates are found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trained
from ingle.convert import chat_template, special
from ingle.convert.errors import BadCheckpoint

VOCAB = {"<s>": 1, "</s>": 2, "<eot>": 3, "<eom>": 4, "<pad>": 5}


def read(*configs: dict[str, Any], models: tuple[dict[str, Any], ...] = ()) -> special.SpecialTokens:
    return special.read(configs, models, VOCAB, 10, {})


def test_texts_decide_before_ids_and_earlier_configs_before_later() -> None:
    first: dict[str, Any] = {"bos_token": "<s>", "eos_token": {"content": "<eot>", "special": True}, "pad_token": None}
    found = read(first, {"eos_token": "</s>", "pad_token": "<pad>"}, models=({"bos_token_id": 7, "sep_token_id": 8},))
    assert found.ids == {"bos": 1, "eos": 3, "sep": 8, "pad": 5}
    assert found.texts == {"bos_token": "<s>", "eos_token": "<eot>", "pad_token": "<pad>"}


def test_every_eos_stops_and_llama_cpp_learns_of_three() -> None:
    models = ({"eos_token_id": 2}, {"eos_token_id": [3, 2, 4, 9, 77, -1]})
    found = read({"eos_token": "<eot>"}, models=models)
    assert found.stop == (3, 2, 4, 9)
    metadata = special.metadata(found)
    assert metadata["tokenizer.ggml.eos_token_id"] == 3
    assert metadata["tokenizer.ggml.eot_token_id"] == 2
    assert metadata["tokenizer.ggml.eom_token_id"] == 4
    assert np.array_equal(metadata["ingle.stop_token_ids"], np.array([3, 2, 4, 9], np.uint32))  # type: ignore[arg-type]


def test_no_eos_and_unknown_texts_are_said() -> None:
    found = read({"bos_token": "<nowhere>"})
    assert found.ids == {}
    assert found.stop == ()
    assert [item.verdict for item in found.items] == ["warn", "warn"]
    assert "'<nowhere>' is not in the vocabulary" in found.items[0].detail


def template(*pieces: str) -> dict[str, Any]:
    single = [
        {"Sequence": {"id": "A", "type_id": 0}} if piece == "$A" else {"SpecialToken": {"id": piece, "type_id": 0}}
        for piece in pieces
    ]
    ids = {piece: {"id": piece, "ids": [VOCAB[piece]], "tokens": [piece]} for piece in pieces if piece != "$A"}
    return {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": ids}


@pytest.mark.parametrize(
    ("post_processor", "expected"),
    [
        (None, ((), ())),
        ({"type": "ByteLevel"}, ((), ())),
        (template("$A"), ((), ())),
        (template("<s>", "$A"), ((1,), ())),
        (template("<s>", "<eot>", "$A", "</s>"), ((1, 3), (2,))),
        ({"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]}, ((1,), (2,))),
        ({"type": "Sequence", "processors": [{"type": "ByteLevel"}, template("<s>", "$A")]}, ((1,), ())),
    ],
)
def test_what_is_put_around_a_text(post_processor: dict[str, Any] | None, expected: Any) -> None:
    assert special.around(post_processor) == expected


PAIR: dict[str, Any] = {
    "type": "TemplateProcessing",
    "single": [],
    "pair": [
        {"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "</s>"}},
        {"SpecialToken": {"id": "</s>"}}, {"Sequence": {"id": "B"}}, {"SpecialToken": {"id": "</s>"}},
    ],
    "special_tokens": {"<s>": {"ids": [1]}, "</s>": {"ids": [2]}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("post_processor", "between", "separates"),
    [
        (None, (), False),
        ({"type": "BertProcessing", "cls": ["[CLS]", 1], "sep": ["[SEP]", 2]}, (2,), False),
        ({"type": "RobertaProcessing", "cls": ["<s>", 1], "sep": ["</s>", 2]}, (2, 2), True),
        (PAIR, (2, 2), True),
        ({"type": "Sequence", "processors": [{"type": "ByteLevel"}, PAIR]}, (2, 2), True),
        ({**PAIR, "pair": []}, (), False),
    ],
    ids=str,
)
def test_what_is_put_between_two_texts(post_processor: Any, between: Any, separates: bool) -> None:
    assert special.between(post_processor) == between
    assert special.separates(((1,), (2,)), between, {"sep": 2}) is separates


@pytest.mark.parametrize(
    ("around", "verdict", "bos", "eos"),
    [
        (((), ()), "ok", False, False),
        (((1,), ()), "ok", True, False),
        (((1,), (2,)), "ok", True, True),
        (((3,), ()), "fail", False, False),
        (((1, 3), ()), "fail", False, False),
        (((), (4,)), "fail", False, False),
    ],
)
def test_only_bos_and_eos_can_be_added(around: Any, verdict: str, bos: bool, eos: bool) -> None:
    metadata, items = special.adding(around, {"bos": 1, "eos": 2})
    assert metadata == {"tokenizer.ggml.add_bos_token": bos, "tokenizer.ggml.add_eos_token": eos}
    assert [item.verdict for item in items] == [verdict]


def test_the_stop_set_of_a_checkpoint_is_complete(tmp_path: Path) -> None:
    folder = trained.byte_level(tmp_path)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2]}), encoding="utf-8")
    made = trained.vocabulary(folder, config={"eos_token_id": 1})
    assert np.array_equal(made.metadata["ingle.stop_token_ids"], np.array([2, 1, 0], np.uint32))  # type: ignore[arg-type]


def test_a_template_file_replaces_the_setting(tmp_path: Path) -> None:
    assert chat_template.find(tmp_path, {}) == {}
    assert chat_template.find(tmp_path, {"chat_template": "old"}) == {"default": "old"}
    (tmp_path / "chat_template.jinja").write_bytes(b"new\r\nline")
    assert chat_template.find(tmp_path, {"chat_template": "old"}) == {"default": "new\nline"}


def test_named_templates_survive_the_way_through_a_file(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    templates = chat_template.find(tmp_path, {"chat_template": named})
    metadata = chat_template.metadata(templates)
    assert metadata == {
        "tokenizer.chat_template": "a",
        "tokenizer.chat_template.tool_use": "b",
        "tokenizer.chat_templates": ["tool_use"],
    }
    assert chat_template.from_metadata(metadata) == templates == {"default": "a", "tool_use": "b"}


@pytest.mark.parametrize("value", [5, ["x"], [{"name": "default"}]])
def test_a_malformed_template_is_a_bad_checkpoint(value: Any, tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint):
        chat_template.find(tmp_path, {"chat_template": value})


def test_a_template_too_large_or_not_text_is_a_bad_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="more than 262,144 bytes"):
        chat_template.find(tmp_path, {"chat_template": "x" * 262_145})
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(BadCheckpoint, match="not UTF-8"):
        chat_template.find(tmp_path, {})
