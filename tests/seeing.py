"""The tiny vision checkpoints, their pictures, and what transformers made of them (tests/reference/make_vision.py)."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

VISION = Path(__file__).parent / "vision"
FAMILIES = sorted(path.name for path in VISION.iterdir())
CASES = ("fitting", "other", "both")


def golden(name: str) -> Any:
    return json.loads((VISION / name / "golden.json").read_text())


def picture(name: str, case: str) -> Path:
    return VISION / name / f"{case}.png"


def messages(name: str, case: str) -> list[dict[str, Any]]:
    """The question of a golden case, as ``Model.chat`` takes it."""
    found = golden(name)
    shown = [{"type": "image", "image": picture(name, one)} for one in found["cases"][case]["pictures"]]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": found["question"]}]}]


def data_url(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def copy(name: str, tmp_path: Path) -> Path:
    """A checkpoint without what belongs to the tests."""
    ours = shutil.ignore_patterns("golden.json", "*.png")
    return shutil.copytree(VISION / name, tmp_path / name, ignore=ours)
