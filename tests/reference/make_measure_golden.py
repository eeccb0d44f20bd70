"""Write tests/golden/measure.json: what llama.cpp's own llama-perplexity says of the example model.

    python tests/reference/make_measure_golden.py FOLDER_OF_LLAMA_CPP_TOOLS

llama.cpp's kernels add up in another order where the CPU has AVX512, so there are figures of both kinds of CPU: those
of the one that this runs on are written. Needs the tools of the llama.cpp that the installed llama-cpp-python was built
from, and ingle on the PATH. Run by hand.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parent.parent
TEXT = TESTS / "data" / "bard_heldout.txt"
CHUNK = 128
NUMBER = r"(-?[\d.]+)"
WANTED = {
    "perplexity": rf"Mean PPL\(Q\) +: +{NUMBER} ± +{NUMBER}",
    "kld": rf"Mean +KLD: +{NUMBER} ± +{NUMBER}",
    "kld_max": rf"Maximum KLD: +{NUMBER}",
    "kld_99": rf"99.0% +KLD: +{NUMBER}",
    "kld_90": rf"90.0% +KLD: +{NUMBER}",
    "kld_median": rf"Median +KLD: +{NUMBER}",
    "rms_delta_p_percent": rf"RMS Δp +: +{NUMBER} ± +{NUMBER}",
    "same_top_percent": rf"Same top p: +{NUMBER} ± +{NUMBER}",
}


def run(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    return done.stdout + done.stderr


def numbers(pattern: str, said: str) -> list[float]:
    match = re.search(pattern, said)
    assert match, f"{pattern} is not in\n{said[-3000:]}"
    return [float(number) for number in match.groups()]


def main() -> None:
    tool = Path(sys.argv[1]) / "llama-perplexity"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base, small, logits = folder / "base.gguf", folder / "small.gguf", folder / "logits"
        run("ingle", "convert", TESTS.parent / "examples" / "bard", "--dtype", "f32", "-o", base)
        run("ingle", "quantize", base, "-t", "Q4_K_M", "-o", folder / "blocks.gguf")
        run("ingle", "quantize", folder / "blocks.gguf", "-t", "F32", "--requantize", "-o", small)
        common = ("-f", TEXT, "-c", str(CHUNK), "--kl-divergence-base", logits)
        alone = run(tool, "-m", base, *common)
        said = run(tool, "-m", small, *common, "--kl-divergence")
    found = {field: numbers(pattern, said) for field, pattern in WANTED.items()}
    # Not the "PPL(base)" of the second run: there the base's surprise is cut off at what the file of logits can hold.
    found["base_perplexity"] = numbers(rf"Final estimate: PPL = {NUMBER} \+/- {NUMBER}", alone)
    golden = TESTS / "golden" / "measure.json"
    kind = "avx512" if "AVX512 = 1" in said else "avx2"
    golden.write_text(json.dumps(json.loads(golden.read_text()) | {"chunk": CHUNK, kind: found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
