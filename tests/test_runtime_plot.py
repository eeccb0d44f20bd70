"""Pictures of measurements: written whole, with what was asked for in them, or refused before work starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ingle.convert.errors import InputError
from ingle.runtime.plot import COLOURS, Chart, Series, draw, require_png
from PIL import Image, ImageColor

CHART = Chart("Loss", "MB", "KLD", (Series("all", ((1, 0.5), (2, 0.05), (3, 0.005))), Series("here", ((2.5, 0.01),))))


def pixels(path: Path, colour: str) -> np.ndarray:
    """Where a colour is: (rows, columns) of each such pixel."""
    image = np.asarray(Image.open(path).convert("RGB"))
    return np.argwhere((image == ImageColor.getrgb(colour)).all(axis=2))


def test_a_curve_falls_and_a_point_lies_on_its_right(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", CHART, {})
    curve, point = pixels(tmp_path / "a.png", COLOURS[0]), pixels(tmp_path / "a.png", COLOURS[1])
    rows, columns = curve.T
    middle = (columns.min() + columns.max()) / 2
    body = rows > rows.min() + 60  # without the names in the corner
    assert rows[body & (columns < middle)].mean() < rows[body & (columns > middle)].mean()
    assert np.median(point[:, 1]) > middle


def test_bars_are_as_long_as_their_values(tmp_path: Path) -> None:
    draw(tmp_path / "b.png", None, {"full": 1.0, "half": 0.5, "nothing": 0.0}, "Shares")
    rows, columns = pixels(tmp_path / "b.png", COLOURS[0]).T
    widths = [np.ptp(columns[rows == row]) for row in np.unique(rows)]
    assert max(widths) == pytest.approx(2 * np.median(widths), rel=0.02)
    assert min(widths) <= 4


@pytest.mark.parametrize("name", ["picture.jpg", "picture", "folder.png"])
def test_what_is_no_png_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError):
        require_png(tmp_path / name)
