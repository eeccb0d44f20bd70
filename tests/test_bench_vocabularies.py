"""The bench that rebuilds llama.cpp's vocabularies: what goes in as GGUF comes out as the tokenizer that it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trained
from ingle.runtime.corpus import WORDS
from tokenizers import Tokenizer, pre_tokenizers

from bench.vocabularies import SEPARATOR, Line, examined, table


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("starcoder", lambda folder: trained.byte_level(folder, [pre_tokenizers.Digits(individual_digits=True)])),
        ("llama-spm", trained.sentencepiece_bpe),
    ],
)
def test_a_vocabulary_is_rebuilt_as_the_tokenizer_it_was(
    name: str, make: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = make(tmp_path / "checkpoint")
    file = trained.vocabulary_gguf(folder, tmp_path / f"ggml-vocab-{name}.gguf")
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = [text for text in WORDS if "\r" not in text]
    ids = [" ".join(map(str, own.encode(text, add_special_tokens=False).ids)) for text in texts]
    file.with_name(f"{file.name}.inp").write_text(SEPARATOR.join(texts), encoding="utf-8")
    file.with_name(f"{file.name}.out").write_text("\n".join(ids), encoding="utf-8")
    (tmp_path / "work").mkdir()
    line = examined(file, tmp_path / "work")
    assert line.fixtures == (len(texts),) * 3
    assert (line.pre, line.differing, line.verdict) == ({"starcoder": "starcoder"}.get(name, "default"), 0, "exact")


def test_the_table_is_markdown() -> None:
    line = Line("x", "gpt2", "gpt-2", (1, 2, 3), 4, 4_000, 5, "known", 6.4)
    assert list(table(iter([line])))[2] == "| x | gpt2 | gpt-2 | 1, 2 of 3 | 4,000 | 4 | 5 | known | 6 |"
