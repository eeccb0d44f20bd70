"""Figures as Markdown, printed or put between the marks of a page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .blocks import Block, Ratio, median_speed, ratio
from .finding import Finding

OURS = "ingle serve"


@dataclass(frozen=True)
class Row:
    """One model, one test: speeds in tokens per second, ratios of ours by each other contender's."""

    model: str
    test: str
    speeds: Mapping[str, float]
    ratios: Mapping[str, Ratio]
    kept: int
    measured: int

    @classmethod
    def of(cls, model: str, test: str, blocks: Sequence[Block], most_foreign: float) -> Row:
        quiet = [block for block in blocks if block.is_quiet(most_foreign)]
        if not quiet:
            return cls(model, test, {}, {}, 0, len(blocks))
        names = list(quiet[0].speeds)
        return cls(
            model,
            test,
            {name: median_speed(quiet, name) for name in names},
            {name: ratio(quiet, OURS, name) for name in names if name != OURS},
            len(quiet),
            len(blocks),
        )


def table(rows: Sequence[Row], conditions: Mapping[str, str]) -> str:
    """The rows under their conditions."""
    peers = list(dict.fromkeys(name for row in rows for name in row.ratios))
    head = ["model", "test", OURS, *(text for name in peers for text in (name, f"ratio to {name}")), "blocks"]
    lines = [condition_line(conditions), "", line(head)]
    lines.append(line(["---"] * len(head)))
    return "\n".join([*lines, *(line(cells(row, peers)) for row in rows)]) + "\n"


def findings_table(findings: Sequence[Finding], conditions: Mapping[str, str]) -> str:
    """The findings under their conditions."""
    lines = [condition_line(conditions), "", line(["what", "figure", "bound", "verdict", "note"]), line(["---"] * 5)]
    return "\n".join([*lines, *(line(finding_cells(finding)) for finding in findings)]) + "\n"


def finding_cells(finding: Finding) -> list[str]:
    figure = f"{finding.figure:.4g} {finding.unit}".strip()
    return [finding.what, figure, finding.bound_text, "pass" if finding.passed else "**fail**", finding.detail]


def condition_line(conditions: Mapping[str, str]) -> str:
    return "; ".join(f"{key}: {value}" for key, value in conditions.items())


def cells(row: Row, peers: Sequence[str]) -> list[str]:
    blocks = f"{row.kept} of {row.measured}"
    if not row.kept:
        return [row.model, row.test, *["too noisy"] * (1 + 2 * len(peers)), blocks]
    compared = [text for name in peers for text in (f"{row.speeds[name]:.1f}", show(row.ratios[name]))]
    return [row.model, row.test, f"{row.speeds[OURS]:.1f}", *compared, blocks]


def show(ratio: Ratio) -> str:
    return f"**{ratio.median:.3f}** ({ratio.low:.3f}-{ratio.high:.3f})"


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def replace_table(page: Path, mark: str, text: str) -> None:
    """Put ``text`` between ``<!-- MARK -->`` and ``<!-- /MARK -->``. Raises RuntimeError when a mark is missing."""
    content = page.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.DOTALL)
    if not pattern.search(content):
        raise RuntimeError(f"{page} has no <!-- {mark} --> ... <!-- /{mark} -->")
    page.write_text(pattern.sub(lambda found: f"{found[1]}{text}{found[2]}", content), encoding="utf-8")
