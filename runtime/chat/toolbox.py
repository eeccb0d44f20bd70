"""The tools of a request: checked, and which of them must be called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...convert.errors import BadRequest

NAME = re.compile(r"[A-Za-z0-9_.\-]{1,128}")
MOST_TOOLS = 128

ToolChoice = str
"""``auto``, ``none``, ``required``, or the name of a tool behind ``=``: ``=get_weather``."""


def checked(tools: Sequence[Mapping[str, Any]] | None, choice: ToolChoice) -> dict[str, Mapping[str, Any]]:
    """The schemas of the arguments by the name of the tool; none where the choice is ``none``.

    Raises:
        BadRequest: a tool has no name, two have the same, the choice names none of them, or demands one of none.
    """
    schemas: dict[str, Mapping[str, Any]] = {}
    if len(tools or ()) > MOST_TOOLS:
        raise BadRequest(f"{len(tools or ())} tools are more than {MOST_TOOLS}", param="tools")
    for index, tool in enumerate(tools or ()):
        place = f"tools[{index}].function"
        function = tool.get("function") if isinstance(tool, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise BadRequest(f"{place}.name must be a word, not {name!r:.80}", param=f"{place}.name")
        parameters = function.get("parameters") if isinstance(function, Mapping) else None
        if parameters is not None and not isinstance(parameters, Mapping):
            raise BadRequest(f"{place}.parameters must be a JSON schema", param=f"{place}.parameters")
        if name in schemas:
            raise BadRequest(f"two tools are called {name}", param=f"{place}.name")
        schemas[name] = parameters or {}
    if choice.startswith("=") and choice[1:] not in schemas:
        raise BadRequest(f"tool_choice names {choice[1:]!r:.80}, which is none of the tools", param="tool_choice")
    if choice == "required" and not schemas:
        raise BadRequest("tool_choice is required, and there are no tools", param="tool_choice")
    return {} if choice == "none" else schemas


def wanted(offered: Mapping[str, Mapping[str, Any]], choice: ToolChoice) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """The tools of which one must be called; none where the model may choose."""
    if choice == "required":
        return tuple(offered.items())
    return ((choice[1:], offered[choice[1:]]),) if choice.startswith("=") else ()
