"""The level of CPU that somebody asks our attention and products to be computed for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ingle.convert.errors import InputError
from ingle.runtime.llama.backend import ATTENTION, PRODUCTS, Levels, check_wanted

DOCTOR = (sys.executable, "-c", "from ingle.runtime.cli.main import main; main()", "doctor")


@pytest.mark.parametrize("variable", [ATTENTION, PRODUCTS])
def test_one_that_is_not_here_is_refused_before_work_starts(variable: str) -> None:
    done = subprocess.run(DOCTOR, env=os.environ | {variable: "avx9"}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{variable}=avx9: no level of this CPU" in done.stderr


@pytest.mark.parametrize(
    ("wanted", "found"), [("avx2", "avx2"), ("", "avx2"), ("", ""), ("off", "")], ids=("named", "best", "none", "off")
)
def test_one_that_is_here_is_not(wanted: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PRODUCTS, wanted)
    check_wanted(Levels("avx512", found))


@pytest.mark.parametrize(("found", "here"), [("avx2", "the best here is avx2"), ("", "there is none here")])
def test_what_is_here_instead_is_said(found: str, here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PRODUCTS, "avx512_vnni")
    with pytest.raises(InputError, match=here):
        check_wanted(Levels("avx512", found))
