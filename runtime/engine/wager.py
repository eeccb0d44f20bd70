"""Whether a draft model pays: how often it is right, what it costs, and what may be lost to find that out. Pure Python,
knows no model.

What a text foretells is followed without computing anything; what a draft model would have said is only known by
asking it, and asking costs time. So there is an allowance: a step without drafts adds a hundredth of its time to it, a
step with drafts what it won or lost. A few tokens are tried for as long as the allowance could bear them all to be
wrong; more are drafted where what was seen so far promises a gain.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .governor import PAYS, Governor

SHARE = 0.01  # of the time of steps without drafts, that trials may lose
BEGIN, MOST = 5.0, 18.0  # of the allowance, in tokens' time
TRIAL = 3  # tokens
TASTE = 64
"""Last tokens of a text that a trial reads where the allowance does not bear the whole of it."""

FADING = 1 / 128  # of what was seen, with each token
COMMON = 8.0  # tokens, seen in one sequence, that count as much as what was seen in all
READS_AS = 0.34  # a row of a text that is read, in drafted tokens, where nothing was measured
WEIGHT = 0.3


@dataclass(eq=False, slots=True)
class Odds:
    """Of ``tried`` drafted tokens ``right`` were what came, in one sequence or in all; old ones count less."""

    right: float = 0.0
    tried: float = 0.0

    def saw(self, right: int, wrong: int) -> None:
        kept = (1 - FADING) ** (right + wrong)
        self.right = self.right * kept + right
        self.tried = self.tried * kept + right + wrong


@dataclass(eq=False, slots=True)
class Wager:
    """Of one engine with a draft model.

    share: a step of the draft model in steps of the model, until it is measured.
    allowance: that trials may lose, in the time of a step without drafts.
    """

    share: float
    odds: Odds = field(default_factory=Odds)
    allowance: float = BEGIN
    _step_s: float = 0.0
    _row_s: float = 0.0

    def count(self, governor: Governor, odds: list[Odds], most: int, now: float) -> int:
        """How many tokens to draft for each of these sequences, which decode together; 0 is none.

        most: rows that there is room for.
        """
        sequences = len(odds)
        gain, drafted = self._best(governor, odds, most, now)
        if gain > PAYS and self.allowance >= 0:
            return drafted
        trial = min(TRIAL, most // sequences - 1) if sequences else 0
        if trial < 1 or not governor.may_draft(sequences):
            return 0
        cost = governor.cost(sequences, sequences * (1 + trial), now) + trial * self._step(governor, sequences)
        return trial if self.allowance >= cost - 1 else 0

    def reads(self, governor: Governor, odds: list[Odds], length: int, missing: int, now: float) -> int:
        """How many of the last ``length`` tokens of one of these sequences, which may get ``missing`` more, the draft
        model is to read: all where that pays, or is borne; else a few, or none at all."""
        if not odds or not governor.may_draft(len(odds)):
            return 0
        row = self._row(governor, len(odds))
        gain, _ = self._best(governor, odds, 1 << 16, now)
        won = missing * (1 - 1 / gain) / 2 if gain > PAYS and self.allowance >= 0 else 0.0
        if length * row <= max(won, self.allowance / 2):
            return length
        return min(length, TASTE) if TASTE * row <= self.allowance / 2 else 0

    def reading(self, governor: Governor, sequences: int, rows: int, seconds: float) -> None:
        """The draft model read so many tokens of a text. What the allowance does not bear was read for what it will
        win."""
        self._row_s += (WEIGHT if self._row_s else 1.0) * (seconds / rows - self._row_s)
        if lone := governor.lone_s(sequences):
            self.allowance -= min(seconds / lone, max(self.allowance, 0.0))

    def drafting(self, tokens: int, seconds: float) -> None:
        """The draft model foretold so many tokens, of each sequence."""
        self._step_s += (WEIGHT if self._step_s else 1.0) * (seconds / tokens - self._step_s)

    def rested(self) -> None:
        """A step without drafts was made."""
        self.allowance = min(MOST, self.allowance + SHARE)

    def settle(self, won: float) -> None:
        """A step with drafts was made, which ``won`` the time of so many steps without, or lost it."""
        self.allowance = min(MOST, self.allowance + won)

    def _best(self, governor: Governor, odds: list[Odds], most: int, now: float) -> tuple[float, int]:
        if not odds or not governor.may_draft(len(odds)):
            return 0.0, 0
        chance, step = min(self._chance(one) for one in odds), self._step(governor, len(odds))
        seen = len(odds) * (1 + round(self.odds.tried))  # nobody knows yet how more than that would fare
        return governor.best(len(odds), min(most, seen), now, lambda count: _run(chance, count), step, 1 + MOST)

    def _chance(self, odds: Odds) -> float:
        """That a drafted token is right, if those before it were."""
        common = (self.odds.right + 1) / (self.odds.tried + 2)
        return (odds.right + COMMON * common) / (odds.tried + COMMON)

    def _step(self, governor: Governor, sequences: int) -> float:
        """A drafted token's time, in steps without drafts."""
        return self._step_s / governor.lone_s(sequences) if self._step_s else self.share

    def _row(self, governor: Governor, sequences: int) -> float:
        """A read token's, likewise."""
        if self._row_s:
            return self._row_s / governor.lone_s(sequences)
        return READS_AS * self._step(governor, sequences)


def _run(chance: float, drafted: int) -> float:
    """Tokens of a draft that will be right."""
    return chance * (1 - chance**drafted) / (1 - chance) if chance < 1 else float(drafted)
