"""Write docs/models.md from a run of the conformance sweep. Run by hand when a family is added; needs no torch."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import models_page
from conformance import Case, by_class
from ingle.convert import convert


def measured(case: Case) -> float:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = case.write(Path(folder) / "checkpoint", case.config)
        return case.error(convert(checkpoint, Path(folder) / "model.gguf", "f32").path)


if __name__ == "__main__":
    claimed = {name: models_page.claim(max(map(measured, cases))) for name, cases in by_class().items()}
    models_page.PAGE.write_text(models_page.page(claimed))
