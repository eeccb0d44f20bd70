"""Formats that rendering a template does not reveal, by what stands in its source."""

from __future__ import annotations

from typing import Any

from .formats import AnswerFormat, Tags, ToolFormat

REASONING: tuple[tuple[str, str], ...] = (
    ("<|channel>thought", "<channel|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<think>", "</think>"),
)
"""Opening and closing; the first whose closing stands in the source."""

GPT_OSS = AnswerFormat(channels="gpt-oss", shows_tools=True, tools=ToolFormat("json"))
ATEM = ToolFormat(
    "tagged",
    call=('<atem:function_calls>\n<atem:invoke name="', "</atem:invoke>\n</atem:function_calls>"),
    middle='">\n',
    tags=Tags('<atem:parameter name="', '">', "</atem:parameter>\n"),
)
MUSE = AnswerFormat(channels="muse", shows_tools=True, tools=ATEM)
CHANNELS: tuple[tuple[str, AnswerFormat], ...] = (("<|channel|>analysis", GPT_OSS), ("<atem:function_calls>", MUSE))
"""Whole answers in messages: by a text in the source."""

GEMMA = ToolFormat("gemma", call=("<|tool_call>call:", "<tool_call|>"))
FUNCTIONARY = ToolFormat("named", call=(">>>", ""), middle="\n")
NAMED: tuple[tuple[str, ToolFormat], ...] = (
    ('<|"|>', GEMMA),
    (">>>all", FUNCTIONARY),
)
"""Known before any probe: by a text in the source."""

LFM = ToolFormat("python", section=("<|tool_call_start|>", "<|tool_call_end|>"))
DESCRIBED: tuple[tuple[str, ToolFormat], ...] = (
    ("<|tool_call_start|>", LFM),
    ("List of tools: ", LFM),
    (
        "<｜tool▁calls▁begin｜>",
        ToolFormat(
            "named",
            section=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
            call=("<｜tool▁call▁begin｜>function<｜tool▁sep｜>", "```<｜tool▁call▁end｜>"),
            middle="\n```json\n",
        ),
    ),
    (
        "<|tool_calls_section_begin|>",
        ToolFormat(
            "named",
            section=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
            call=("<|tool_call_begin|>functions.", "<|tool_call_end|>"),
            middle=":\0<|tool_call_argument_begin|>",
        ),
    ),
    ("<|tool_call|>", ToolFormat("json", section=("<|tool_call|>", "<|/tool_call|>"), listed=True)),
    (
        "Action:",
        ToolFormat(
            "json",
            section=("Action:```json", "```"),
            listed=True,
            name_key="tool_name",
            arguments_key="parameters",
        ),
    ),
    ("[TOOL_CALLS]", ToolFormat("json", section=("[TOOL_CALLS]", ""), listed=True)),
    (
        "<function=",
        ToolFormat(
            "tagged",
            call=("<tool_call><function=", "</function></tool_call>"),
            middle=">",
            tags=Tags("<parameter=", ">\n", "\n</parameter>"),
        ),
    ),
    ("<tool_call>", ToolFormat("json", call=("<tool_call>", "</tool_call>"))),
)
"""For templates that tell the model of the format and do not render calls in it."""


def bare(source: str) -> ToolFormat:
    """Llama 3: the object alone is a call; behind its own tag it may stand anywhere."""
    opening = "<|python_tag|>" if "<|python_tag|>" in source else ""
    return ToolFormat("json", (opening, ""), arguments_key="parameters", separator=";", bare=True)


def variables(source: str, tools: Any) -> dict[str, Any]:
    """What a template reads its tools from, besides ``tools``: SmolLM3."""
    return {"xml_tools": list(tools)} if tools and "xml_tools" in source else {}
