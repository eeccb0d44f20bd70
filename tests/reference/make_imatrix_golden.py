"""Write tests/golden/imatrix.json: what llama.cpp's own llama-imatrix finds for the example model and a mixture.

    python tests/reference/make_imatrix_golden.py FOLDER_OF_LLAMA_CPP_TOOLS

Needs the tools of the llama.cpp that the installed llama-cpp-python was built from. Run by hand, with tests/ on the
PYTHONPATH. Of each weight the counts, the sum and the Euclidean norm of its values, and some of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import sweeping
from ingle.convert import convert
from ingle.quantize import imatrix

TESTS = Path(__file__).parent.parent
TEXT = TESTS / "data" / "bard_heldout.txt"
CHUNK = 64
SAMPLES = 4


def main() -> None:
    tool = Path(sys.argv[1]) / "llama-imatrix"
    golden = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sweeping.write_checkpoint(folder / "mixture", sweeping.load("mixtral"))
        for label, checkpoint in (("bard", TESTS.parent / "examples" / "bard"), ("mixtral", folder / "mixture")):
            model = convert(checkpoint, folder / f"{label}.gguf", "f32").path
            out = folder / f"{label}-imatrix.gguf"
            command = (tool, "-m", model, "-f", TEXT, "-c", str(CHUNK), "-o", out, "--no-ppl")
            subprocess.run(list(map(str, command)), check=True, capture_output=True)
            golden[label] = {name: summary(entry) for name, entry in imatrix.read(out).entries.items()}
    (TESTS / "golden" / "imatrix.json").write_text(json.dumps({"chunk": CHUNK, **golden}) + "\n")


def summary(entry: imatrix.Importance) -> dict[str, Any]:
    sums = entry.sums.ravel()
    samples = [float(f"{value:.7g}") for value in sums[:: len(sums) // SAMPLES][:SAMPLES]]
    return {
        "counts": entry.counts.tolist(),
        "sum": float(f"{sums.sum():.9g}"),
        "norm": float(f"{np.linalg.norm(sums):.9g}"),
        "samples": samples,
    }


if __name__ == "__main__":
    main()
