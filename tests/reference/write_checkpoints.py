"""Write the tiny checkpoints of tests/sweep/ and tests/encoders/ as folders: ``write_checkpoints.py OUT [name ...]``.

For tools that want files, such as ``bench/compare_converter.py``; the tests make the same ones on the spot.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import encoders
import sweeping


def main(folder: Path, chosen: list[str]) -> None:
    for name in sweeping.NAMES:
        if not chosen or name in chosen:
            sweeping.write_checkpoint(folder / name, sweeping.load(name))
    for name in encoders.NAMES:
        if not chosen or name in chosen:
            encoders.write(folder / name, encoders.recipe(name))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
