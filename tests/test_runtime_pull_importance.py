"""Types that need an importance matrix, pulled: with a file, or with one that is collected on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from faketools import Workmen, tiny_gguf
from ingle.convert import gguf
from ingle.convert.errors import InputError
from ingle.convert.source import Source
from ingle.quantize import imatrix
from ingle.quantize.imatrix import Importance as Values
from ingle.quantize.imatrix import ImportanceMatrix
from ingle.runtime.cli.importance import Importance
from ingle.runtime.cli.pull import pull_command
from ingle.runtime.store import build
from ingle.runtime.store.manifest import Entry
from ingle.runtime.store.stages import Tools
from ingle.runtime.store.store import Store
from pulling import NAME, Puller, puller

TEXT = Path(__file__).parent / "data" / "bard_heldout.txt"
# The proof is under test elsewhere, and takes longer than the rest.
TOOLS = replace(Tools(), prove=Workmen().prove)


def matrix(bard: Path, path: Path, seed: int) -> Path:
    """Random importance for the weights of the example checkpoint."""
    random, plans = np.random.default_rng(seed), Source(bard, "auto").plans
    entries = {
        plan.name: Values(random.gamma(0.5, 10, (1, plan.shape[-1])), np.array([7]))
        for plan in plans
        if plan.name.startswith("blk.") and len(plan.shape) == 2
    }
    imatrix.write(path, ImportanceMatrix(entries, ("random.txt",), 7))
    return path


def obtain(bard: Path, importance: Importance | None, kind: str = "Q4_0") -> Entry:
    wanted = importance and importance.for_build()
    return build.obtain(f"{bard}:{kind}", Store(), tools=TOOLS, importance=wanted)


def test_a_model_is_built_with_a_matrix_and_built_again_only_with_another(bard: Path, tmp_path: Path) -> None:
    one, two = (str(matrix(bard, tmp_path / f"{seed}.gguf", seed)) for seed in (1, 2))
    first = obtain(bard, Importance(one, None, None))
    assert obtain(bard, Importance(one, None, None)) == obtain(bard, None) == first
    second = obtain(bard, Importance(two, None, None))
    assert second.sha256 != first.sha256
    assert Store().list() == (second,)
    assert not first.path.exists()


def test_a_type_that_needs_a_matrix_can_be_had_with_one(bard: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs an importance matrix"):
        obtain(bard, None, "IQ3_XXS")
    entry = obtain(bard, Importance(str(matrix(bard, tmp_path / "m.gguf", 1)), None, None), "IQ3_XXS")
    assert gguf.read(entry.path).tensors["blk.0.ffn_up.weight"].type.name == "IQ3_XXS"


def test_a_matrix_is_collected_on_the_way(bard: Path) -> None:
    entry = obtain(bard, Importance("auto", TEXT, None))
    metadata = gguf.read(entry.path).metadata
    assert metadata["quantize.imatrix.dataset"] == TEXT.name
    assert obtain(bard, Importance("auto", TEXT, None)) == entry
    assert {path.suffix for path in entry.path.parent.iterdir()} == {".gguf", ".json"}


def test_where_a_matrix_would_change_nothing_it_is_refused(bard: Path, tmp_path: Path) -> None:
    given = Importance(str(matrix(bard, tmp_path / "m.gguf", 1)), None, None)
    with pytest.raises(InputError, match="nothing is quantized to F16"):
        obtain(bard, given, "F16")
    with pytest.raises(InputError, match="is a file"):
        build.obtain(str(tiny_gguf(tmp_path / "x.gguf")), Store(), importance=given.for_build())


@pytest.fixture
def pull(tmp_path: Path) -> Iterator[Puller]:
    with puller(tmp_path / "disk") as pull:
        yield pull


def test_gguf_files_of_the_hub_are_used_as_they_are(pull: Puller, bard: Path, tmp_path: Path) -> None:
    pull.hub.add(NAME, {"tiny-Q8_0.gguf": tiny_gguf(tmp_path / "x.gguf").read_bytes()})
    given = Importance(str(matrix(bard, tmp_path / "m.gguf", 1)), None, None)
    with pytest.raises(InputError, match="used as they are"):
        pull(importance=given.for_build())


def cli(*arguments: str | Path) -> Result:
    return CliRunner().invoke(pull_command, [*map(str, arguments)])


def test_the_type_is_an_option_too(bard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def obtain(name: str, store: Store, **_: object) -> Entry:
        asked.append(name)
        raise InputError("enough")

    monkeypatch.setattr("ingle.runtime.store.build.obtain", obtain)
    cli("org/name", "-t", "Q5_K_M")
    cli(bard, "-t", "Q5_K_M")
    assert asked == ["org/name:Q5_K_M", f"{bard}:Q5_K_M"]
    assert cli("org/name:Q4_0", "-t", "Q5_K_M").exit_code == 2
    assert cli("org/name", "--imatrix", "auto").exit_code == 2
