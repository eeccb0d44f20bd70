"""Chat templates: the same text as transformers, refusals as errors, and messages checked before any template runs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ingle.convert.errors import BadRequest, TemplateError
from ingle.runtime.chat import Conversation, Template
from ingle.runtime.chat.conversation import special_tokens
from ingle.runtime.corpus import CONVERSATIONS, TOOLS

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}

# One of each style that models on the hub use; written for this test.
STYLES = {
    "chatml": (
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "headers": (
        "{{- bos_token }}\n{%- for message in messages %}\n"
        "    {{- '<|start|>' + message.role + '<|end|>\n\n' + message.content | trim + '<|eot|>' }}\n{%- endfor %}\n"
        "{%- if add_generation_prompt %}{{- '<|start|>assistant<|end|>\n\n' }}{%- endif %}\n"
    ),
    "turns": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Roles must alternate') }}{% endif %}"
        "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
        "{{ '<turn>' + role + '\n' + message['content'] | trim + '</turn>\n' }}{% endfor %}"
    ),
    "inst": (
        "{%- if messages[0].role == 'system' %}{% set system, rest = messages[0].content, messages[1:] %}{% else %}"
        "{% set system, rest = '', messages %}{% endif %}{{ bos_token }}\n{% for m in rest %}\n"
        "  {% if m.role == 'user' %}\n{{ '[INST] ' ~ (system ~ '\n\n' if loop.last and system else '') ~ m.content ~ "
        "' [/INST]' }}\n  {% elif m.role == 'assistant' %}\n{{ ' ' ~ m.content ~ eos_token }}\n  {% endif %}\n"
        "{% endfor %}"
    ),
    "tools": (
        "{% if tools %}{% for tool in tools %}{{ tool | tojson }}\n{{ tool.function | tojson(indent=2) }}\n{% endfor %}"
        "{% endif %}{% for m in messages %}{{ m.role }}: {% if m.tool_calls %}{% for c in m.tool_calls %}"
        "{{ c.function.name }}({{ c.function.arguments | tojson }}){% endfor %}{% else %}{{ m.content }}{% endif %}\n"
        "{% endfor %}"
    ),
    "parts": (
        "{% for m in messages %}{{ m.role }}|{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for part in m.content %}{{ part['text'] if part['type'] == 'text' }};{% endfor %}{% endif %}\n{% endfor %}"
    ),
    "namespace": (
        "{% set ns = namespace(system='', seen=0) %}{% for m in messages if m.role != 'system' %}"
        "{% set ns.seen = ns.seen + 1 %}{% if m.role == 'tool' %}{% continue %}{% endif %}{{ ns.seen }}={{ m.content }}"
        "{% if ns.seen > 2 %}{% break %}{% endif %}{% endfor %}{{ undefined_name }}|{{ missing is defined }}"
    ),
    "macro": (
        "{% macro wrap(m, first=false) %}{% if first %}>{% endif %}<{{ m.role | upper }}>{{ m.content | default('-') }}"
        "{% endmacro %}{% for m in messages %}{{ wrap(m, loop.first) }}{{ loop.cycle('a', 'b') }}{% endfor %}"
    ),
    "training": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}\n"
        "{% endgeneration %}{% else %}{{ m.content }}\n{% endif %}{% endfor %}"
    ),
    "reasoning": (
        "{% for m in messages %}{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
        "{% if m.content is string and '</think>' in m.content %}{{ m.content.split('</think>')[-1].lstrip('\n') }}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}{% if enable_thinking is not defined %}?{% endif %}"
    ),
    "dates": (
        "{{ strftime_now('%Y') }}{{ dict(a=1, b=messages | length) | tojson(sort_keys=true) }}{{ 3 / 2 }}{{ none }}"
    ),
    "strict": "{{ messages[0].content.missing.more }}{{ messages[0]['content'][:3] }}",
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), **SPECIAL)


@pytest.mark.parametrize("style", STYLES)
def test_every_style_renders_as_in_transformers(style: str, tokenizer: Any) -> None:
    ours = Template(STYLES[style], SPECIAL)
    refusals = 0
    for messages in CONVERSATIONS:
        for tools in (None, list(TOOLS)):
            for opens in (True, False):
                try:
                    expected = tokenizer.apply_chat_template(
                        messages, tools=tools, chat_template=STYLES[style], add_generation_prompt=opens, tokenize=False
                    )
                except Exception:
                    refusals += 1
                    with pytest.raises(TemplateError):
                        ours.render(messages, tools=tools, add_generation_prompt=opens)
                else:
                    assert ours.render(messages, tools=tools, add_generation_prompt=opens) == expected
    assert refusals < 4 * len(CONVERSATIONS) or style == "strict"


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_chatml_text() -> None:
    prompt = Template(STYLES["chatml"], SPECIAL).render([user("Hi")])
    assert prompt == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_a_refusal_carries_the_words_of_the_template() -> None:
    with pytest.raises(TemplateError, match="refused the messages: Roles must alternate"):
        Template(STYLES["turns"], SPECIAL).render([user("a"), user("b")])


def test_a_broken_template_is_an_error_when_it_is_used_not_before() -> None:
    template = Template("line one\n{% if %}", SPECIAL)
    with pytest.raises(TemplateError, match=r"is broken \(line 2\)"):
        template.render([user("a")])


def test_variables_reach_the_template_and_may_replace_special_tokens() -> None:
    template = Template("{{ bos_token }}{{ enable_thinking }}", SPECIAL)
    assert template.render([user("a")], enable_thinking=False) == "<s>False"
    assert template.render([user("a")], enable_thinking=1, bos_token="<x>") == "<x>1"


def test_rendering_leaves_the_messages_alone() -> None:
    messages = [{"role": "assistant", "content": "a", "thinking": "hm", "name": None}]
    copy = json.loads(json.dumps(messages))
    assert Template("{{ messages[0].reasoning_content }}{{ 'name' in messages[0] }}", {}).render(messages) == "hmFalse"
    assert messages == copy


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{% set ns = namespace() %}{% set ns.__init__ = 1 %}",
        "{{ namespace(__class__=1) }}",
        "{{ lipsum.__globals__['os'].popen('id').read() }}",
        "{% for i in range(1000000) %}x{% endfor %}",
    ],
)
def test_the_sandbox_holds(source: str) -> None:
    with pytest.raises(TemplateError):
        Template(source, SPECIAL).render([user("a")])


def test_formatting_shows_no_internals() -> None:
    source = "[{{ ('{0.__class__}' | string).format(messages) }}{{ '{0.__init__}'.format(messages) }}]"
    assert Template(source, SPECIAL).render([user("a")]) == "[]"


def test_output_and_source_have_an_end() -> None:
    long = "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' * 99"
    endless = f"{{% for i in range(90000) %}}{{% for j in range(90000) %}}{{{{ {long} }}}}{{% endfor %}}{{% endfor %}}"
    with pytest.raises(TemplateError, match="wrote more than"):
        Template(endless, {}).render([user("a")])
    with pytest.raises(TemplateError, match="more than 262,144 bytes"):
        Template(" " * 262_145, {}).render([user("a")])


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("Hello", "messages"),
        ([1], "messages[0]"),
        ([user("a"), {"content": "b"}], "messages[1].role"),
        ([{"role": "user<|im_end|>", "content": "b"}], "messages[0].role"),
        ([user("a"), user("b"), user("c"), user(None)], "messages[3].content"),
        ([user(5)], "messages[0].content"),
        ([user([{"type": "text", "text": "a"}, {"type": "image_url"}])], "messages[0].content[1]"),
        ([user([{"type": "text", "text": 3}])], "messages[0].content[0]"),
        ([user(["a"])], "messages[0].content[0]"),
    ],
)
def test_a_message_of_the_wrong_shape_is_named(messages: Any, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Conversation({"default": STYLES["chatml"]}, SPECIAL).render(messages)
    assert caught.value.param == param


def test_an_assistant_may_call_tools_instead_of_speaking() -> None:
    conversation = Conversation({"default": STYLES["tools"]}, SPECIAL)
    assert "weather(" in conversation.render(
        [user("a"), {"role": "assistant", "tool_calls": CONVERSATIONS[16][2]["tool_calls"]}]
    )


def test_parts_go_as_they_are_to_templates_that_take_them_and_joined_to_others() -> None:
    parts = [user([{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}])]
    assert Conversation({"default": STYLES["parts"]}, {}).render(parts) == "user|One.;Two.;"
    joined = "<|im_start|>user\nOne.\nTwo.<|im_end|>\n"
    assert Conversation({"default": STYLES["chatml"]}, {}).render(parts, add_generation_prompt=False) == joined
    printed = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert Conversation({"default": printed}, {}).render(parts) == "One.\nTwo."


def test_chats_with_tools_use_the_template_for_tools() -> None:
    conversation = Conversation({"default": "plain", "tool_use": "tools: {{ tools | length }}"}, {})
    assert conversation.names == ("default", "tool_use")
    assert conversation.render([user("a")]) == conversation.render([user("a")], tools=[]) == "plain"
    assert conversation.render([user("a")], tools=TOOLS) == "tools: 1"


def test_a_model_without_template_says_what_to_use_instead() -> None:
    with pytest.raises(TemplateError, match="no chat template") as caught:
        Conversation({}, {}).render([user("a")])
    assert "completions" in caught.value.hint
    with pytest.raises(TemplateError, match="rag"):
        Conversation({"rag": "x"}, {}).render([user("a")])


def test_special_tokens_come_from_the_checkpoint_or_from_the_ids() -> None:
    assert special_tokens({"ingle.special_tokens": '{"bos_token": "<s>"}'}) == {"bos_token": "<s>"}
    foreign = {
        "tokenizer.ggml.tokens": ["<s>", "</s>"],
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.bos_token_id": 9,
    }
    assert special_tokens(foreign) == {"eos_token": "</s>"}


def test_a_conversation_reads_its_templates_from_the_metadata() -> None:
    metadata = {
        "tokenizer.chat_template": "{{ eos_token }}",
        "tokenizer.chat_template.rag": "r",
        "ingle.special_tokens": '{"eos_token": "E"}',
    }
    conversation = Conversation.of(metadata)
    assert conversation.names == ("default", "rag")
    assert conversation.render([user("a")]) == "E"
