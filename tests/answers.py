"""Small chat templates, one for each way in which models write tool calls and reasoning, and answers in each."""

# ruff: noqa: E501 - the lines of templates

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ingle.runtime.chat import Call, Conversation, Reading

CHATML = (
    "{% if tools %}<|im_start|>system\nTools:{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}<|im_end|>\n"
    "{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content or '' }}"
    "{% for call in m.tool_calls or [] %}CALL{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HERMES = CHATML.replace(
    "CALL",
    '\n<tool_call>\n{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    "\n</tool_call>",
)
THINKING = HERMES.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
CODER = CHATML.replace(
    "CALL",
    "\n<tool_call>\n<function={{ call.function.name }}>\n{% for key, value in call.function.arguments.items() %}"
    "<parameter={{ key }}>\n{{ value if value is string else value | tojson }}\n</parameter>\n{% endfor %}</function>\n"
    "</tool_call>",
)
GLM = CHATML.replace(
    "CALL",
    "\n<tool_call>{{ call.function.name }}\n{% for key, value in call.function.arguments.items() %}"
    "<arg_key>{{ key }}</arg_key>\n<arg_value>{{ value if value is string else value | tojson }}</arg_value>\n"
    "{% endfor %}</tool_call>",
)
DSML = CHATML.replace(
    "{% for call in m.tool_calls or [] %}CALL{% endfor %}",
    '{% if m.tool_calls %}\n<calls>{% for call in m.tool_calls %}\n<invoke name="{{ call.function.name }}">'
    '{% for key, value in call.function.arguments.items() %}\n<parameter name="{{ key }}" string="'
    "{{ 'true' if value is string else 'false' }}\">{{ value if value is string else value | tojson }}</parameter>"
    "{% endfor %}\n</invoke>{% endfor %}\n</calls>{% endif %}",
)
MISTRAL = (
    "<s>{% if tools %}[AVAILABLE_TOOLS]{{ tools | list | tojson }}[/AVAILABLE_TOOLS]{% endif %}{% for m in messages %}"
    "{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]{% elif m.tool_calls %}[TOOL_CALLS]["
    "{% for call in m.tool_calls %}{% if call.id | length != 9 %}{{ raise_exception('ids have nine letters') }}{% endif %}"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}, "id": "{{ call.id }}"}'
    "{% if not loop.last %}, {% endif %}{% endfor %}]</s>{% elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}"
    "[/TOOL_RESULTS]{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
)
NAMED = MISTRAL.replace("[TOOL_CALLS][{%", "{%").replace(
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}, "id": "{{ call.id }}"}'
    "{% if not loop.last %}, {% endif %}{% endfor %}]",
    "[TOOL_CALLS]{{ call.function.name }}[CALL_ID]{{ call.id }}[ARGS]{{ call.function.arguments | tojson }}{% endfor %}",
)
KIMI = CHATML.replace(
    "{% for call in m.tool_calls or [] %}CALL{% endfor %}",
    "{% if m.tool_calls %}<|calls_begin|>{% for call in m.tool_calls %}<|call_begin|>functions."
    "{{ call.function.name }}:{{ loop.index0 }}<|arguments_begin|>{{ call.function.arguments | tojson }}<|call_end|>"
    "{% endfor %}<|calls_end|>{% endif %}",
)
LLAMA = (
    "{% if tools %}<|h|>system<|/h|>\n\nTools:{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}<|eot|>{% endif %}"
    "{% for m in messages %}<|h|>{{ m.role }}<|/h|>\n\n{% if m.tool_calls %}{% if m.tool_calls | length > 1 %}"
    "{{ raise_exception('one at a time') }}{% endif %}"
    '{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments | tojson }}}'
    "{% else %}{{ m.content }}{% endif %}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|h|>assistant<|/h|>\n\n{% endif %}"
)
LFM = CHATML.replace(
    "{% for call in m.tool_calls or [] %}CALL{% endfor %}",
    "{% if m.tool_calls %}<|calls|>[{% for call in m.tool_calls %}{{ call.function.name }}("
    "{% for key, value in call.function.arguments.items() %}{{ key }}={{ value | tojson }}"
    "{% if not loop.last %}, {% endif %}{% endfor %}){% if not loop.last %}, {% endif %}{% endfor %}]<|/calls|>{% endif %}",
)
GEMMA = CHATML.replace("CALL", '<|tool_call>call:{{ call.function.name }}{...}<tool_call|>{# <|"|> #}')
MUSE = CHATML.replace("CALL", "") + "{# <atem:function_calls> #}"
KIMI_TAGGED = CHATML.replace(
    "{% for call in m.tool_calls or [] %}CALL{% endfor %}",
    '{% if m.tool_calls %}<|open|>tools<|sep|>{% for call in m.tool_calls %}<|open|>call tool="{{ call.function.name }}" '
    'index="{{ loop.index }}"<|sep|>{% for key, value in call.function.arguments.items() %}<|open|>argument key="{{ key }}" '
    "type=\"{{ 'string' if value is string else 'number' }}\"<|sep|>{{ value if value is string else value | tojson }}"
    "<|close|>argument<|sep|>{% endfor %}<|close|>call<|sep|>{% endfor %}<|close|>tools<|sep|>{% endif %}",
)
ELEMENTS = CHATML.replace(
    "{% for call in m.tool_calls or [] %}CALL{% endfor %}",
    '{% if m.tool_calls %}NS<tool_call>\n{% for call in m.tool_calls %}NS<invoke name="{{ call.function.name }}">'
    "{% for key, value in call.function.arguments.items() %}NS<{{ key }}>{{ value }}NS</{{ key }}>{% endfor %}"
    "NS</invoke>\n{% endfor %}NS</tool_call>{% endif %}",
).replace("NS", "]<]m[>[")
OSS = CHATML + "{# <|channel|>analysis #}"


def tool(name: str) -> dict[str, Any]:
    properties = {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
    }
    parameters = {"type": "object", "properties": properties, "required": ["city"], "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": "About it.", "parameters": parameters}}


TOOLS = [tool("get_weather"), tool("find_it")]
PARIS = Call.of("get_weather", {"city": 'Paris, "x"', "days": 3})
ROME = Call.of("find_it", {"city": "Rome", "tags": ["a", "b"]})


@dataclass(frozen=True)
class Example:
    """An answer, and what it must be read as."""

    template: str
    text: str
    calls: tuple[Call, ...] = (PARIS, ROME)
    content: str = ""
    reasoning: str = ""

    def reading(self) -> Reading:
        conversation = Conversation({"default": self.template}, {"bos_token": "<s>", "eos_token": "</s>"})
        return conversation.prompt([{"role": "user", "content": "hi"}], tools=TOOLS).reading


_PARIS = '{"city": "Paris, \\"x\\"", "days": 3}'
_ROME = '{"city": "Rome", "tags": ["a", "b"]}'
_HERMES = (
    f'<tool_call>\n{{"name": "get_weather", "arguments": {_PARIS}}}\n</tool_call>\n'
    f'<tool_call>\n{{"name": "find_it", "arguments": {_ROME}}}\n</tool_call>'
)
EXAMPLES: dict[str, Example] = {
    "hermes": Example(HERMES, _HERMES),
    "hermes with words": Example(HERMES, f"I look.\n\n{_HERMES}", content="I look."),
    "hermes that reasons": Example(HERMES, f"<think>\nWell,\n\nso.\n</think>\n\n{_HERMES}", reasoning="Well,\n\nso."),
    "already inside the reasoning": Example(THINKING, f"Well.\n</think>\n\n{_HERMES}", reasoning="Well."),
    "never out of the reasoning": Example(THINKING, f"Well. {_HERMES}", (), reasoning=f"Well. {_HERMES}"),
    "a literal tag in the content": Example(HERMES, "Write <think> and </think>.", (), "Write <think> and </think>."),
    "no call at all": Example(HERMES, "a < b, <tool and {\n", (), "a < b, <tool and {\n"),
    "a call that is cut off": Example(HERMES, _HERMES[:40], (), _HERMES[:40]),
    "broken, then whole": Example(
        HERMES, f"<tool_call>\n{{oops\n</tool_call>\n{_HERMES}", content="<tool_call>\n{oops\n</tool_call>"
    ),
    "words behind a call": Example(HERMES, f"{_HERMES}\n\nDone.", content="Done."),
    "coder": Example(
        CODER,
        '<tool_call>\n<function=get_weather>\n<parameter=city>\nParis, "x"\n</parameter>\n<parameter=days>\n3\n'
        "</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=find_it>\n<parameter=city>\nRome\n</parameter>\n"
        '<parameter=tags>\n["a", "b"]\n</parameter>\n</function>\n</tool_call>',
    ),
    "glm": Example(
        GLM,
        '<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris, "x"</arg_value>\n<arg_key>days</arg_key>\n'
        "<arg_value>3</arg_value>\n</tool_call>\n<tool_call>find_it\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>"
        '\n<arg_key>tags</arg_key>\n<arg_value>["a", "b"]</arg_value>\n</tool_call>',
    ),
    "dsml": Example(
        DSML,
        '<calls>\n<invoke name="get_weather">\n<parameter name="city" string="true">Paris, "x"</parameter>\n'
        '<parameter name="days" string="false">3</parameter>\n</invoke>\n<invoke name="find_it">\n<parameter name="city" '
        'string="true">Rome</parameter>\n<parameter name="tags" string="false">["a", "b"]</parameter>\n</invoke>\n'
        "</calls>",
    ),
    "mistral": Example(
        MISTRAL,
        f'[TOOL_CALLS][{{"name": "get_weather", "arguments": {_PARIS}, "id": "abcdefgh1"}}, '
        f'{{"name": "find_it", "arguments": {_ROME}, "id": "abcdefgh2"}}]',
    ),
    "mistral by name": Example(
        NAMED,
        f"[TOOL_CALLS]get_weather[CALL_ID]abcdefgh1[ARGS]{_PARIS}[TOOL_CALLS]find_it[CALL_ID]abcdefgh2[ARGS]{_ROME}",
    ),
    "kimi": Example(
        KIMI,
        f"<|calls_begin|><|call_begin|>functions.get_weather:0<|arguments_begin|>{_PARIS}<|call_end|>"
        f"<|call_begin|>functions.find_it:1<|arguments_begin|>{_ROME}<|call_end|><|calls_end|>",
    ),
    "llama": Example(LLAMA, f'{{"name": "get_weather", "parameters": {_PARIS}}}', (PARIS,)),
    "llama, two": Example(
        LLAMA, f'{{"name": "get_weather", "parameters": {_PARIS}}}; {{"name": "find_it", "parameters": {_ROME}}}'
    ),
    "llama, an object of its own": Example(
        LLAMA, '{"name": "Bob", "parameters": {}} is JSON', (), '{"name": "Bob", "parameters": {}} is JSON'
    ),
    "python": Example(
        LFM, "<|calls|>[get_weather(city='Paris, \"x\"', days=3), find_it(city=\"Rome\", tags=['a', 'b'])]<|/calls|>"
    ),
    "gemma": Example(
        GEMMA,
        '<|tool_call>call:get_weather{city:<|"|>Paris, "x"<|"|>,days:3}<tool_call|><|tool_call>call:find_it'
        '{city:<|"|>Rome<|"|>,tags:[<|"|>a<|"|>,<|"|>b<|"|>]}<tool_call|>',
    ),
    "python, with a line break in a text": Example(
        LFM,
        '<|calls|>[get_weather(city="Paris,\n\\"x\\"", days=3)]<|/calls|>',
        (Call.of("get_weather", {"city": 'Paris,\n"x"', "days": 3}),),
    ),
    "gemma, with Python's words": Example(
        GEMMA,
        '<|tool_call>call:find_it{city:<|"|>None<|"|>,ok:True,no:None}<tool_call|>',
        (Call.of("find_it", {"city": "None", "ok": True, "no": None}),),
    ),
    "coder, with CDATA": Example(
        CODER,
        "<tool_call>\n<function=find_it>\n<parameter=city>\n<![CDATA[a <b>]]>\n</parameter>\n</function>\n</tool_call>",
        (Call.of("find_it", {"city": "a <b>"}),),
    ),
    "tags that share their ends": Example(
        KIMI_TAGGED,
        '<|open|>tools<|sep|><|open|>call tool="get_weather" index="1"<|sep|><|open|>argument key="city" type="string"<|sep|>'
        'Paris, "x"<|close|>argument<|sep|><|open|>argument key="days" type="number"<|sep|>3<|close|>argument<|sep|><|close|>call'
        '<|sep|><|open|>call tool="find_it" index="2"<|sep|><|open|>argument key="city" type="string"<|sep|>Rome<|close|>argument'
        '<|sep|><|open|>argument key="tags" type="number"<|sep|>["a", "b"]<|close|>argument<|sep|><|close|>call<|sep|>'
        "<|close|>tools<|sep|>",
    ),
    "elements in elements": Example(
        ELEMENTS,
        '@<tool_call>\n@<invoke name="get_weather">@<city>Paris, "x"@</city>@<days>3@</days>@</invoke>\n@<invoke name="find_it">'
        "@<city>Rome@</city>@<tags>@<item>a@</item>@<item>b@</item>@</tags>@</invoke>\n@</tool_call>".replace(
            "@", "]<]m[>["
        ),
    ),
    "messages to somebody": Example(
        MUSE,
        ' to=self<|message|>Well.<|eom|><|start|>assistant to=get_weather<|message|><atem:function_calls>\n<atem:invoke name="'
        'get_weather">\n<atem:parameter name="city">Paris, "x"</atem:parameter>\n<atem:parameter name="days">3</atem:parameter>'
        "\n</atem:invoke>\n</atem:function_calls><|eom|><|start|>assistant to=find_it<|message|><atem:function_calls>\n"
        '<atem:invoke name="find_it">\n<atem:parameter name="city">Rome</atem:parameter>\n<atem:parameter name="tags">["a", "b"]'
        "</atem:parameter>\n</atem:invoke>\n</atem:function_calls><|eom|><|start|>assistant to=user<|message|>Done.<|eot|>",
        content="Done.",
        reasoning="Well.",
    ),
    "a message to a tool that is no call": Example(
        MUSE, " to=find_it<|message|><atem:function_calls>oops", (), "<atem:function_calls>oops"
    ),
    "channels": Example(
        OSS,
        f"<|channel|>analysis<|message|>Well.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather "
        f"<|constrain|>json<|message|>{_PARIS}<|end|><|start|>assistant to=functions.find_it<|channel|>commentary json"
        f"<|message|>{_ROME}<|end|><|start|>assistant<|channel|>final<|message|>Done.",
        content="Done.",
        reasoning="Well.",
    ),
    "channels, broken arguments": Example(
        OSS, "<|channel|>commentary to=functions.find_it<|message|>{oops<|call|>", (), "{oops"
    ),
}
