"""One measured figure beside its bound."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """``figure`` in ``unit``; it passes when it is at most (or, with ``at_least``, at least) ``bound``."""

    what: str
    figure: float
    bound: float
    unit: str = ""
    at_least: bool = False
    detail: str = ""

    @property
    def passed(self) -> bool:
        return self.figure >= self.bound if self.at_least else self.figure <= self.bound

    @property
    def bound_text(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:.6g}"

    def __str__(self) -> str:
        verdict = "PASS" if self.passed else "FAIL"
        figures = f"{self.figure:.6g} {self.unit} (bound {self.bound_text})"
        return f"{verdict}  {self.what}: {figures}{'; ' if self.detail else ''}{self.detail}"
