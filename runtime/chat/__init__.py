"""Messages in, prompt text out: a model's own chat template, rendered as transformers renders it."""

from .conversation import Conversation
from .template import Template

__all__ = ["Conversation", "Template"]
