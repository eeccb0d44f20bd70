"""The tokenizer.json inside a file: pairs, offsets, special tokens as text, several threads, and files that lie."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trained
from ingle.convert.errors import BadGGUF, BadRequest, UnsupportedModel
from ingle.convert.vocabulary import DOCUMENT_KEY, LIBRARY, LIBRARY_KEY
from ingle.runtime.embedded import EmbeddedTokenizer
from ingle.runtime.llama.vocab import Vocab


@pytest.fixture(scope="module")
def vocab(tmp_path_factory: pytest.TempPathFactory) -> Vocab:
    folder = trained.wordpiece(tmp_path_factory.mktemp("checkpoint"))
    return Vocab.open(trained.vocabulary_gguf(folder, folder / "v.gguf"))


def test_a_pair_has_segments_and_offsets_into_its_texts(vocab: Vocab) -> None:
    made = vocab.encode("The KING", "Größe, day")
    assert vocab.embedded
    assert [vocab.piece(token, special=True).decode().strip() for token in made.ids if token < 5] == [
        "[CLS]", "[SEP]", "[SEP]"
    ]  # fmt: skip
    first = made.sequences.index(1)
    assert made.type_ids == (0,) * first + (1,) * (len(made.ids) - first)
    spans = {sequence: [] for sequence in (0, 1, None)}  # type: dict[int | None, list[tuple[int, int]]]
    for sequence, span in zip(made.sequences, made.offsets, strict=True):
        spans[sequence].append(span)
    assert spans[None] == [(0, 0)] * 3
    assert "".join("The KING"[start:end] for start, end in spans[0]) == "TheKING"
    assert "".join("Größe, day"[start:end] for start, end in spans[1]) == "Größe,day"


def test_special_tokens_are_text_unless_asked_for(vocab: Vocab) -> None:
    assert vocab.tokenize("a [SEP] b", add_special=False, parse_special=True).count(3) == 1
    assert 3 not in vocab.tokenize("a [SEP] b", add_special=False, parse_special=False)
    assert vocab.tokenize("a") == vocab.tokenize("a", parse_special=True)


def test_a_lone_surrogate_is_refused(vocab: Vocab) -> None:
    with pytest.raises(BadRequest, match="lone surrogate at character 1"):
        vocab.tokenize("a\ud800")
    with pytest.raises(BadRequest, match="lone surrogate"):
        vocab.encode("a", "\ud800")


def test_threads_share_it(vocab: Vocab) -> None:
    texts = [f"the king {index}" for index in range(200)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(vocab.tokenize, texts)) == [vocab.tokenize(text) for text in texts]


def test_the_shortest_tokenization_of_a_text_is_not_guessed(vocab: Vocab) -> None:
    assert vocab.fewest_tokens("a" * 10_000) == 0


def test_a_file_without_one_has_no_pairs(tmp_path: Path) -> None:
    folder = trained.byte_level(tmp_path)
    with Vocab.open(trained.vocabulary_gguf(folder, tmp_path / "v.gguf")) as vocab:
        assert not vocab.embedded
        with pytest.raises(UnsupportedModel, match=r"holds no tokenizer\.json"):
            vocab.encode("a", "b")


def test_one_that_nobody_proved_is_not_used() -> None:
    assert EmbeddedTokenizer.of({DOCUMENT_KEY: "{}"}) is None


def test_a_file_that_lies_about_it_is_broken() -> None:
    with pytest.raises(BadGGUF, match=r"has no tokenizer\.huggingface\.json"):
        EmbeddedTokenizer.of({LIBRARY_KEY: LIBRARY})
    broken = EmbeddedTokenizer.of({LIBRARY_KEY: LIBRARY, DOCUMENT_KEY: '{"model": 5}'})
    assert broken is not None
    with pytest.raises(BadGGUF, match="cannot be read"):
        broken.encode("a")
