"""Small pictures of measurements: a curve over sizes, and bars beside it, as PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..convert.errors import InputError
from ..convert.files import appearing

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

SCALE = 2  # everything is drawn so many times as large as it will be seen
SIZE = (1120, 460)
LEFT, TOP, RIGHT, BOTTOM = 90, 50, 30, 60
TEXT, GRID, INK = 13, "#dddddd", "#222222"
COLOURS = ("#1f6fb2", "#d1495b", "#3a7d44", "#8f5fbf", "#c98a1b", "#4d4d4d")
BAR_HEIGHT, BAR_GAP, LABEL_WIDTH = 18, 6, 170

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one kind; joined by a line unless there is only one."""

    name: str
    points: Points


@dataclass(frozen=True, slots=True)
class Chart:
    """y is drawn logarithmically; all its values are positive."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]


def require_png(path: Path) -> None:
    """Raise :class:`InputError` for a picture that could not be written; before the work that it shows."""
    if path.suffix.lower() != ".png":
        raise InputError(f"{path} is no PNG", hint="name a file that ends in .png", param="plot")
    if path.is_dir():
        raise InputError(f"{path} is a folder", hint="name the picture to write", param="plot")


def draw(path: Path, chart: Chart | None, bars: Mapping[str, float], bars_title: str = "") -> None:
    """Write ``chart``, and ``bars`` (values of at least 0, by name) at its right, or alone.

    Raises:
        InputError: the name does not end in .png, or is a folder's.
    """
    from PIL import Image, ImageDraw

    require_png(path)
    height = max(SIZE[1], TOP + BOTTOM + len(bars) * (BAR_HEIGHT + BAR_GAP))
    image = Image.new("RGB", (SIZE[0] * SCALE, height * SCALE), "white")
    pen = _Pen(ImageDraw.Draw(image))
    middle = SIZE[0] * 6 // 10 if chart and bars else SIZE[0] if chart else 0
    if chart:
        _Plane(chart, pen, (LEFT, TOP, middle - RIGHT, SIZE[1] - BOTTOM)).draw()
    if bars:
        _bars(pen, bars, bars_title, middle + 20, SIZE[0] - RIGHT)
    with appearing(path) as partial:
        image.save(partial, "PNG", optimize=True)


class _Pen:
    """Draws in the units that a picture is seen in."""

    def __init__(self, canvas: ImageDraw) -> None:
        from PIL import ImageFont

        self._canvas = canvas
        self._font: Any = ImageFont.load_default(TEXT * SCALE)

    def line(self, points: Points, colour: str, width: float = 1.0) -> None:
        self._canvas.line([(x * SCALE, y * SCALE) for x, y in points], colour, round(width * SCALE))

    def dot(self, x: float, y: float, colour: str, radius: float = 4.0) -> None:
        box = [(x - radius) * SCALE, (y - radius) * SCALE, (x + radius) * SCALE, (y + radius) * SCALE]
        self._canvas.ellipse(box, colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: str) -> None:
        self._canvas.rectangle([left * SCALE, top * SCALE, right * SCALE, bottom * SCALE], colour)

    def text(self, x: float, y: float, text: str, anchor: str = "lm", colour: str = INK) -> None:
        self._canvas.text((x * SCALE, y * SCALE), text, colour, self._font, anchor)


class _Plane:
    """The axes of a chart, and where its values lie on the picture."""

    def __init__(self, chart: Chart, pen: _Pen, frame: tuple[float, float, float, float]) -> None:
        points = [point for series in chart.series for point in series.points]
        self._chart, self._pen, self._frame = chart, pen, frame
        self._x = _padded([x for x, _ in points])
        self._y = _padded([math.log10(y) for _, y in points])

    def draw(self) -> None:
        left, top, right, bottom = self._frame
        for value in _steps(*self._x):
            self._pen.line([(self._at_x(value), top), (self._at_x(value), bottom)], GRID)
            self._pen.text(self._at_x(value), bottom + 14, f"{value:g}", "mm")
        for value in _decades(*self._y):
            self._pen.line([(left, self._at_y(value)), (right, self._at_y(value))], GRID)
            self._pen.text(left - 8, self._at_y(value), f"{value:g}", "rm")
        self._pen.text((left + right) / 2, bottom + 38, self._chart.x_label, "mm")
        self._pen.text(left, top - 28, f"{self._chart.title} ({self._chart.y_label})")
        for number, series in enumerate(self._chart.series):
            self._series(series, COLOURS[number % len(COLOURS)], top + 14 + 20 * number, right - 12)

    def _series(self, series: Series, colour: str, label_y: float, label_x: float) -> None:
        places = [(self._at_x(x), self._at_y(y)) for x, y in series.points]
        if len(places) > 1:
            self._pen.line(places, colour, 1.6)
        for x, y in places:
            self._pen.dot(x, y, colour, 3.0 if len(places) > 1 else 5.5)
        self._pen.text(label_x, label_y, series.name, "rm", colour)

    def _at_x(self, value: float) -> float:
        left, _, right, _ = self._frame
        return left + (value - self._x[0]) / (self._x[1] - self._x[0]) * (right - left)

    def _at_y(self, value: float) -> float:
        _, top, _, bottom = self._frame
        return bottom - (math.log10(value) - self._y[0]) / (self._y[1] - self._y[0]) * (bottom - top)


def _bars(pen: _Pen, bars: Mapping[str, float], title: str, left: float, right: float) -> None:
    most = max(bars.values()) or 1.0
    room = right - left - LABEL_WIDTH - 60
    pen.text(left, TOP - 28, title)
    for number, (name, value) in enumerate(bars.items()):
        top = TOP + number * (BAR_HEIGHT + BAR_GAP)
        start = left + LABEL_WIDTH
        pen.text(start - 8, top + BAR_HEIGHT / 2, name, "rm")
        pen.box(start, top, start + max(1.0, value / most * room), top + BAR_HEIGHT, COLOURS[0])
        pen.text(start + value / most * room + 8, top + BAR_HEIGHT / 2, f"{value:.3g}")


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.5
    return low - room, high + room


def _steps(low: float, high: float) -> list[float]:
    """Four to nine round numbers between the two."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [round(number * step, 12) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each power of ten between 10^low and 10^high."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    marks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    return [mark for mark in marks if low <= math.log10(mark) <= high]
