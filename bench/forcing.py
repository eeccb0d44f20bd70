"""Text that a grammar leaves no choice about: what it wins that a run of its tokens is computed in one step.

A form of eight long keys with answers of one word each: most of its text is known before it is written.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from ingle.runtime.engine.constraint import Matcher
from ingle.runtime.engine.engine import Engine
from ingle.runtime.options import LoadOptions
from ingle.runtime.request import Constraint, Request, Sampling

from .finding import Finding

KEYS = (
    "customer_billing_address_line_one",
    "customer_shipping_address_country_code",
    "the_order_was_confirmed_by_the_customer",
    "expected_delivery_window_in_business_days",
    "payment_method_that_was_used_for_the_order",
    "internal_reference_number_of_the_warehouse",
    "the_package_contains_fragile_items",
    "preferred_language_of_all_communication",
)
FORM = Constraint("start: " + " ".join(f'"{key}: " ("yes" | "no") "; "' for key in KEYS) + "\n")
ROUNDS = 5


def findings(model: Path) -> list[Finding]:
    engine = Engine(model, LoadOptions(speculate="off"))
    try:
        return list(_compared(engine))
    finally:
        engine.close()


def _compared(engine: Engine) -> Iterator[Finding]:
    _tokens_per_s(engine)
    together, alone = [], []
    for _ in range(ROUNDS):
        together.append(_tokens_per_s(engine))
        with patch.object(Matcher, "forced", lambda _: []):
            alone.append(_tokens_per_s(engine))
    ratio = statistics.median(together) / statistics.median(alone)
    detail = f"{statistics.median(together):.0f} and {statistics.median(alone):.0f} tokens/s"
    yield Finding("forced text: speed by one by one", ratio, 1.2, at_least=True, detail=detail)


def _tokens_per_s(engine: Engine) -> float:
    began = time.monotonic()
    stream = engine.submit(Request("Fill in the form.\n", Sampling(temperature=0), constraint=FORM))
    for _ in stream:
        continue
    return stream.usage.completion_tokens / (time.monotonic() - began)
