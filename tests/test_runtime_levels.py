"""The level of CPU that somebody asks our attention and products to be computed for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ingle.convert.errors import InputError
from ingle.runtime.llama.backend import ATTENTION, PRODUCTS, check_wanted
from ingle.runtime.llama.library import supports_gpu_offload

DOCTOR = (sys.executable, "-c", "from ingle.runtime.cli.main import main; main()", "doctor")


@pytest.mark.skipif(supports_gpu_offload(), reason="a build for a GPU has none of either")
@pytest.mark.parametrize("variable", [ATTENTION, PRODUCTS])
def test_one_that_is_not_here_is_refused_before_work_starts(variable: str) -> None:
    done = subprocess.run(DOCTOR, env=os.environ | {variable: "avx9"}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{variable}=avx9: no level of this CPU" in done.stderr


def test_what_was_found_instead_is_said() -> None:
    check_wanted(PRODUCTS, "avx2", "avx2")
    check_wanted(PRODUCTS, "", "avx2")
    check_wanted(PRODUCTS, "off", "")
    with pytest.raises(InputError, match="the best here is avx2"):
        check_wanted(PRODUCTS, "avx512_vnni", "avx2")
    with pytest.raises(InputError, match="there is none here"):
        check_wanted(PRODUCTS, "avx2", "")
