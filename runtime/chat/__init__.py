"""Messages in, prompt out, as transformers renders it; answers taken apart into reasoning, content and tool calls."""

from .continuing import Continuing
from .conversation import Conversation
from .formats import Call, Piece
from .output import Output
from .prompt import Prompt
from .reader import AnswerReader, Reading
from .template import Template

__all__ = ["AnswerReader", "Call", "Continuing", "Conversation", "Output", "Piece", "Prompt", "Reading", "Template"]
