"""Pictures through the whole runtime: the answers of transformers, whoever else asks, and never another picture's."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engines import GREEDY, Home
from ingle.convert import convert
from ingle.convert.errors import BadRequest, Cancelled, ContextLengthExceeded, LoadFailed, TemplateError
from ingle.runtime import Model
from ingle.runtime.chat import Conversation
from ingle.runtime.engine.engine import Engine
from ingle.runtime.engine.prompt import read
from ingle.runtime.engine.stream import Stream
from ingle.runtime.options import LoadOptions
from ingle.runtime.request import Image, Request
from PIL import Image as Pillow
from seeing import CASES, FAMILIES, VISION, data_url, golden, messages, picture

EXACT: dict[str, Any] = {"kv_type": "f32", "flash_attention": "off", "threads": 1}
ALL = [(name, case) for name in FAMILIES for case in CASES]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The checkpoints converted to f32, projectors beside them."""
    folder = tmp_path_factory.mktemp("vision")
    return {name: convert(VISION / name, folder / f"{name}.gguf", "f32").path for name in FAMILIES}


@pytest.fixture(scope="module")
def models(files: Mapping[str, Path]) -> Iterator[Mapping[str, Model]]:
    loaded = {name: Model.load(path, options=LoadOptions(**EXACT)) for name, path in files.items()}
    yield loaded
    for model in loaded.values():
        model.close()


def asked(model: Model, said: Sequence[Mapping[str, Any]], most: int = 12) -> Stream:
    return model.chat(said, sampling=GREEDY, max_tokens=most)


def tokens(stream: Stream) -> list[int]:
    return [token for delta in stream for token in delta.tokens]


@pytest.mark.parametrize(("name", "case"), ALL)
def test_greedy_answers_are_those_of_transformers(models: Mapping[str, Model], name: str, case: str) -> None:
    stream = asked(models[name], messages(name, case))
    assert tokens(stream) == golden(name)["cases"][case]["answer"]
    assert stream.usage.prompt_tokens == len(golden(name)["cases"][case]["ids"])


@pytest.mark.parametrize(("name", "case"), ALL)
def test_the_prompt_is_the_one_of_transformers(models: Mapping[str, Model], name: str, case: str) -> None:
    """Token by token; where we have the rows of a picture, transformers has the token that stands for one."""
    want, model = golden(name)["cases"][case], models[name]
    assert model.render(messages(name, case)) == want["prompt"]
    engine = model._engine
    assert isinstance(engine, Engine)
    shown = tuple(Image(picture(name, one).read_bytes()) for one in want["pictures"])
    request = Request(want["prompt"], images=shown, image_text=model._conversation.image_text(), add_special=False)
    prompt = read(request, engine._model.vocab, engine._projector)
    stand_ins = {one for one, ours in zip(want["ids"], prompt.tokens, strict=True) if ours < 0}
    assert len(stand_ins) == 1
    assert [one for one in want["ids"] if one not in stand_ins] == [ours for ours in prompt.tokens if ours >= 0]
    rows = [ours for ours in prompt.tokens if ours < 0]
    assert len(set(rows)) == len(rows) == sum(span.count for span in prompt.spans)


def test_both_homes_see_the_same(files: Mapping[str, Path], home: Home) -> None:
    options = LoadOptions(**EXACT, mmproj=str(files["smolvlm"].with_name("smolvlm-mmproj.gguf")))
    engine = home(files["smolvlm"], options)
    want = golden("smolvlm")["cases"]["other"]
    try:
        shown = (Image(picture("smolvlm", "other").read_bytes()),)
        request = Request(want["prompt"], GREEDY, 12, images=shown, image_text="<image>", add_special=False)
        assert tokens(engine.submit(request)) == want["answer"]
        with pytest.raises(BadRequest, match="format is not known") as caught:
            list(engine.submit(Request("<image>", images=(Image(b"GIF89a", "here"),), image_text="<image>")))
        assert caught.value.param == "here"
    finally:
        engine.close()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_picture_is_recognised_and_no_other_is_taken_for_it(models: Mapping[str, Model], name: str) -> None:
    model, cases = models[name], golden(name)["cases"]
    for case in ("fitting", "other", "both", "other", "fitting", "fitting"):
        stream = asked(model, messages(name, case))
        assert tokens(stream) == cases[case]["answer"]
    whole = len(cases["fitting"]["ids"]) - 1
    assert stream.usage.cached_tokens == (0 if name == "qwen2_5_vl" else whole)


@pytest.mark.parametrize("name", ["smolvlm", "gemma3"])
def test_another_picture_of_the_same_size_shares_only_what_is_before_it(models: Mapping[str, Model], name: str) -> None:
    with Pillow.open(picture(name, "fitting")) as image:
        turned = image.transpose(Pillow.Transpose.ROTATE_180)
        changed = image.copy()
        changed.putpixel((0, 0), (1, 2, 3))
    said = messages(name, "fitting")
    ours = asked(models[name], said)
    assert tokens(ours) == golden(name)["cases"]["fitting"]["answer"]
    for other in (turned, changed):
        said[0]["content"][0] = {"type": "image", "image": png(other)}
        stream = asked(models[name], said)
        list(stream)
        assert stream.usage.cached_tokens < 20 < stream.usage.prompt_tokens


def png(image: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_stay_the_same_in_a_crowd(files: Mapping[str, Path], name: str) -> None:
    cases = golden(name)["cases"]
    with Model.load(files[name], options=LoadOptions(**EXACT, parallel=3, prefill_chunk=3)) as model:
        alone = tokens(asked(model, [{"role": "user", "content": "What news?"}], most=40))

        def ask(case: str) -> bool:
            if case == "text":
                return tokens(asked(model, [{"role": "user", "content": "What news?"}], most=40)) == alone
            return tokens(asked(model, messages(name, case))) == cases[case]["answer"]

        with ThreadPoolExecutor(6) as pool:
            assert all(pool.map(ask, ["text", *CASES, "text", "fitting"]))
        assert model.stats().failed == 0


def test_several_choices_look_at_one_picture(models: Mapping[str, Model]) -> None:
    for name in FAMILIES:
        answers: dict[int, list[int]] = {0: [], 1: []}
        for delta in models[name].chat(messages(name, "fitting"), sampling=GREEDY, max_tokens=12, n=2):
            answers[delta.index] += delta.tokens
        assert answers == dict.fromkeys((0, 1), golden(name)["cases"]["fitting"]["answer"])


def test_penalties_look_back_on_words_only(models: Mapping[str, Model]) -> None:
    sampling = replace(GREEDY, repeat_penalty=1.3, repeat_last_n=-1)
    stream = models["smolvlm"].chat(messages("smolvlm", "fitting"), sampling=sampling, max_tokens=6)
    assert len(tokens(stream)) == 6


def test_who_leaves_while_a_picture_is_read_leaves_the_rest_alone(models: Mapping[str, Model]) -> None:
    model = models["gemma3"]
    leaving = [asked(model, messages("gemma3", "both"), most=100) for _ in range(3)]
    for stream in leaving:
        stream.cancel()
    for stream in leaving:
        with pytest.raises(Cancelled):
            list(stream)
    assert tokens(asked(model, messages("gemma3", "both"))) == golden("gemma3")["cases"]["both"]["answer"]


def test_a_conversation_goes_on_after_a_picture(models: Mapping[str, Model]) -> None:
    """The second question reads the picture from the cache, where positions allow it."""
    for name, model in models.items():
        first = messages(name, "fitting")
        answer = "".join(delta.text for delta in asked(model, first, most=4))
        again = [*first, {"role": "assistant", "content": answer}, {"role": "user", "content": "And then?"}]
        stream = asked(model, again, most=4)
        list(stream)
        rows = len(golden(name)["cases"]["fitting"]["ids"]) // 2
        assert (stream.usage.cached_tokens > rows) == (name != "qwen2_5_vl")


def test_text_alone_is_still_shared_where_pictures_are_not(models: Mapping[str, Model]) -> None:
    said = [{"role": "user", "content": "What is the matter with the king of the whole island, pray?"}]
    for _ in range(2):
        stream = asked(models["qwen2_5_vl"], said, most=3)
        list(stream)
    assert stream.usage.cached_tokens == stream.usage.prompt_tokens - 1


def part(image: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "Look:"}, {"type": "image", "image": image}]}]


def test_paths_bytes_and_data_urls_are_the_same_picture(models: Mapping[str, Model]) -> None:
    path = picture("smolvlm", "other")
    url = data_url(path.read_bytes())
    ways = [part(path), part(str(path)), part(path.read_bytes()), part(url)]
    ways.append([{"role": "user", "content": [ways[0][0]["content"][0], {"type": "image_url", "image_url": url}]}])
    assert len({tuple(tokens(asked(models["smolvlm"], way))) for way in ways}) == 1


@pytest.mark.parametrize(
    ("said", "message", "param"),
    [
        (part("no/such/file.png"), "no file", "messages[0].content[1].image"),
        (part(7), "int", "messages[0].content[1].image"),
        (part(b"not a picture"), "format is not known", "messages[0].content[1].image"),
        (part("data:image/png;base64,%%%"), "base64", "messages[0].content[1].image"),
        ([{"role": "user", "content": [{"type": "image"}]}], "has no picture", "messages[0].content"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "NoneType",
         "messages[0].content[0].image_url.url"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}],
         "not fetched", "messages[0].content[0].image_url.url"),
        ([{"role": "user", "content": [{"type": "image", "image": b"x"}] * 17}], "at most 16",
         "messages[0].content[16].image"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused_by_its_place(
    models: Mapping[str, Model], said: Any, message: str, param: str | None
) -> None:
    with pytest.raises(BadRequest, match=message) as caught:
        list(models["smolvlm"].chat(said))
    assert param is None or caught.value.param == param


def test_the_text_of_a_mark_is_text(models: Mapping[str, Model]) -> None:
    """It makes no place for a picture, and nothing is put around it."""
    seen = part(picture("smolvlm", "other"))[0]["content"]
    tokens = []
    for text in ("", "<image>", "<image>" * 3):
        said = [{"role": "user", "content": [*seen, {"type": "text", "text": text}]}]
        with models["smolvlm"].chat(said, max_tokens=1) as stream:
            stream.text()
            tokens.append(stream.usage.prompt_tokens)
    mark = len(models["smolvlm"].tokenize("<image>", add_special=False))
    assert mark > 1, "as a control token it would be one"
    assert tokens == [tokens[0], tokens[0] + mark, tokens[0] + 3 * mark]


def test_a_model_of_text_says_so(bard_gguf: Mapping[str, Path]) -> None:
    with Model.load(bard_gguf["f32"]) as model, pytest.raises(BadRequest, match="reads no pictures") as caught:
        model.chat(part(picture("smolvlm", "other")))
    assert caught.value.param == "messages[0].content[1].image"


def test_pictures_that_do_not_fit_the_window_are_counted(files: Mapping[str, Path]) -> None:
    with Model.load(files["smolvlm"], options=LoadOptions(**EXACT, context_length=64)) as model:
        with pytest.raises(ContextLengthExceeded) as caught:
            list(asked(model, messages("smolvlm", "both")))
        assert caught.value.prompt_tokens == len(golden("smolvlm")["cases"]["both"]["ids"])


def test_a_projector_of_another_model_is_not_loaded(files: Mapping[str, Path]) -> None:
    with pytest.raises(LoadFailed, match="projector"):
        Model.load(files["smolvlm"], options=LoadOptions(mmproj=str(files["gemma3"].with_name("gemma3-mmproj.gguf"))))
    with pytest.raises(LoadFailed, match="projector"):
        Model.load(files["smolvlm"], options=LoadOptions(mmproj=str(files["smolvlm"])))


def test_a_template_without_a_place_for_pictures_says_so() -> None:
    bard = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(TemplateError, match="no place for pictures"):
        Conversation({"default": bard}, {}).image_text()
    with pytest.raises(BadRequest, match="no place for pictures") as caught:
        Conversation({"default": bard}, {}).render([{"role": "user", "content": [{"type": "image"}]}])
    assert caught.value.param == "messages[0].content[0]"


def test_a_template_that_takes_parts_only_gets_texts_as_parts(models: Mapping[str, Model]) -> None:
    """SmolVLM's would write nothing of a plain text."""
    assert "What news?" in models["smolvlm"].render([{"role": "user", "content": "What news?"}])
