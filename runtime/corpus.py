"""Strings that tell tokenizers apart, and conversations that tell chat templates apart. The same ones every time."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

SEED = 20_261_122
WORDS = (
    "",
    " ",
    "  ",
    "\n",
    "\n\n\n",
    "\t\tx\r\n y \r z",
    "Hello, world!",
    " leading and trailing ",
    "I'm you're HE'LL they'VE it's don'T 'tis rock'n'roll ''quoted''",
    "1 12 123 1234 12345 1,234,567.89 0x1F 3.14e-10 ½ ² Ⅷ ١٢٣ १२३",
    "end of line   \nnext  line\n\n   third\t\n",
    "CamelCase snake_case kebab-case SCREAMING_CASE path/to/file.txt C:\\dir\\file",
    "def f(x: int) -> str:\n    return f'{x!r}'  # comment\n\n\nclass A:\n\tpass\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i] * c; } // done\n",
    'SELECT "name", COUNT(*) FROM t WHERE x <> \'y\' GROUP BY 1;\n{"key": [1, 2.5, null, true]}\n',
    "<html><body class='a'>&amp; &lt;b&gt;</body></html> <!-- c -->",
    "https://example.org/a?b=c&d=%20e#f user@example.org +49 (0)30 123-456",
    "...!!!???---___===***~~~```|||<<<>>>[[[]]]{{{}}}((()))$$$%%%^^^&&&@@@###",
    "Größe Straße Äpfel Ñandú façade naïve coöperate Ærø Łódź Þór",
    "Привет, мир! Ёжик съел 5 яблок.",
    "你好，世界！今天天气怎么样？　全角空格",
    "こんにちは、世界。カタカナとひらがなと漢字、ｶﾀｶﾅ",
    "안녕하세요 세계! 한글 조합형 ㄱㄴㄷ",
    "مرحبا بالعالم، كيف حالك؟ שלום עולם",
    "नमस्ते दुनिया क्षत्रिय สวัสดีชาวโลก ภาษาไทย বাংলা தமிழ் ქართული հայերեն ἀρχή አማርኛ",
    "Tiếng Việt: Xin chào thế giới, trường đại học",
    "😀 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 ✨🔥 ❤️ 1️⃣",
    "e\u0301 n\u0303 a\u0308 \u212b \u2126 ﬁ ﬀ ① ㎏ ｆｕｌｌ",
    "zero\u200bwidth\u200djoiner\u00a0nbsp\u3000ideographic\ufeffbom\u2028line\u2029para\x85nel",
    "∀x∈ℝ: ⌈x⌉ ≥ x ∧ ∑ᵢ aᵢ² ≠ ∞ ← → ⇒ ∂f/∂x √2 ≈ 1.414 x³",
    "€100 £5 ¥1000 ₹50 © ® ™ § ¶ † ‡ • … – — ‘’ “” «» ‹›",
    "ᚠᛇᚻ 𐍈𐌰 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚 𠀀𪛖 🄰",
    "\x00\x01\x1f\x7f\x80",
    "a" * 200,
    " " * 70 + "x" + " " * 3,
    "\n" * 9 + "\t" * 5,
    "ha" * 60 + "!" * 40,
    "the the  the   the    the\n the\n  the",
)
ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "0123456789 .,",
    " \n\t\r  \u00a0\u3000",
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    "äöüßéèêçñøåžšłŁÄÖÜ",
    "абвгдежзийклмнопрстАБВГ",
    "的一是不了人我在有他这中大来上国",
    "あいうえおアイウエオ日本語",
    "가나다라마바사한국어",
    "ابتثجحخدذرזחטיכל",
    "😀😂👍🏽❤️\u200d🔥",
    "'s't're'VE'll d",
)

_FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
"""What some normal forms turn into ASCII."""


def strings(pieces: Sequence[str], specials: Sequence[str], count: int = 4_000) -> list[str]:
    """``count`` strings or some more, half of them random sequences of pieces, which tell most.

    pieces: the texts of a vocabulary's ordinary tokens. specials: the texts of its added tokens.
    """
    source = random.Random(SEED)  # noqa: S311 - repeatable, not secret
    some = source.sample(specials, min(len(specials), 64))
    texts = [*WORDS, *(f"x{token} y" for token in specials[:1_000]), *_inline(some), *_lookalikes(some)]
    texts += [_bytes(source) for _ in range(count // 10)]
    texts += [_code_points(source) for _ in range(count // 8)]
    texts += [_mixed_alphabets(source) for _ in range(count // 8)]
    pairs = max(count - len(texts), count // 2)
    return texts + ["".join(source.choices(pieces or WORDS, k=source.randint(2, 6))) for _ in range(pairs)]


def _inline(specials: Sequence[str]) -> Iterator[str]:
    for index, token in enumerate(specials):
        other = specials[(index + 1) % len(specials)]
        yield from (token, f"a{token}b", f"A {token} b", f"{token}{other}", f"\n{token}\n x", f"{other} {token}  c")


def _lookalikes(specials: Sequence[str]) -> Iterator[str]:
    for token in specials:
        yield from (token[:-1], token[1:], token[:1] + " " + token[1:], f"<{token}", token.swapcase() + "x")
        yield from (token.translate(_FULL_WIDTH), unicodedata.normalize("NFD", token))


def _bytes(source: random.Random) -> str:
    return source.randbytes(source.randint(1, 40)).decode("utf-8", "replace")


def _code_points(source: random.Random) -> str:
    """Assigned characters from the whole of Unicode, the lower planes more often."""
    found: list[str] = []
    size = source.randint(1, 20)
    while len(found) < size:
        character = chr(source.randrange(source.choice((0x250, 0x3000, 0x10000, 0x20000, 0x110000))))
        if unicodedata.category(character) not in ("Cn", "Cs", "Co"):
            found.append(character)
    return "".join(found)


def _mixed_alphabets(source: random.Random) -> str:
    return "".join(
        "".join(source.choices(source.choice(ALPHABETS), k=source.randint(1, 8))) for _ in range(source.randint(1, 8))
    )


Messages = list[dict[str, Any]]

_QUESTION = {"role": "user", "content": "What is the capital of France?"}
_ANSWER = {"role": "assistant", "content": "Paris."}
_SYSTEM = {"role": "system", "content": "You answer in one word."}
_CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"id": "call00001", "type": "function", "function": {"name": "weather", "arguments": {"city": "Paris", "n": 2}}}
    ],
}
_RESULT = {"role": "tool", "tool_call_id": "call00001", "name": "weather", "content": '{"sky": "<clear> & \\"blue\\""}'}

CONVERSATIONS: tuple[Messages, ...] = (
    [_QUESTION],
    [_SYSTEM, _QUESTION],
    [_SYSTEM, _QUESTION, _ANSWER, {"role": "user", "content": "And of Spain?"}],
    [_QUESTION, _ANSWER, _QUESTION, _ANSWER],
    [{"role": "user", "content": ""}],
    [_SYSTEM | {"content": ""}, {"role": "user", "content": "  spaces around \n\n"}, _ANSWER | {"content": " ok\n"}],
    [{"role": "user", "content": "Größe 你好 مرحبا 👩‍👩‍👧 \u2028 \x07 <b>&amp;</b> {{ x }} {% y %} \\n"}],
    [{"role": "user", "content": "<|im_end|><|im_start|>system</s>[INST]<start_of_turn>"}],
    [_QUESTION, _QUESTION],
    [_ANSWER, _QUESTION],
    [_QUESTION, _SYSTEM, _ANSWER],
    [_SYSTEM],
    [{"role": "critic", "content": "Of whom?"}],
    [{"role": "developer", "content": "Be brief."}, _QUESTION],
    [_QUESTION, _ANSWER | {"reasoning_content": "It is Paris, I think."}, _QUESTION],
    [_QUESTION, _ANSWER | {"content": "<think>\nhm\n</think>\n\nParis."}, _QUESTION],
    [_SYSTEM, _QUESTION, _CALL, _RESULT],
    [_QUESTION, _CALL, _RESULT, _ANSWER, _QUESTION],
    [{"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]}],
)
TOOLS: tuple[Mapping[str, Any], ...] = (
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": 'The weather, "now" <b>&</b> später.',
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "enum": ["Paris", "Köln"]}, "n": {"type": "integer"}},
                "required": ["city"],
            },
        },
    },
)
