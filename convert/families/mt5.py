"""mT5: a gated T5 for many languages, which never scales its states before the head."""

from __future__ import annotations

from dataclasses import replace

from . import t5

FAMILY = replace(
    t5.FAMILY,
    classes=("MT5ForConditionalGeneration",),
    model_types=("mt5",),
    defaults={**t5.FAMILY.defaults, "feed_forward_proj": t5.GATED, "vocab_size": 250112},
    transforms=lambda config: {},
    tied_head=True,
)
