"""Greedy continuations of the example checkpoint by transformers, for the tests to compare with. Needs torch.

    python tests/reference/make_bard_golden.py

transformers computes in float32 from the bf16 weights; a prompt is kept only if the two best logits of every step are
at least MARGIN apart: nearer ones are decided by the arithmetic, not by the model. (At 0.02 two prompts are kept.)
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).parents[2]
BARD = ROOT / "examples" / "bard"
TOKENS = 64
MARGIN = 0.005
PROMPTS = (
    "Who art thou?",
    "My lord, what news from France?",
    "Tell me of love.",
    "Where is the king?",
    "What say you to this, good friend?",
    "I shall not go with thee tonight.",
    "Good morrow, cousin.",
    "Is the day so young?",
    "What ho, who comes there?",
    "Thou art a villain.",
    "Give me thy hand.",
    "Speak, what is the matter?",
)


def main() -> None:
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(BARD)
    model = AutoModelForCausalLM.from_pretrained(BARD, dtype=torch.float32).eval()
    cases = [case for prompt in PROMPTS if (case := continuation(model, tokenizer, prompt))]
    target = ROOT / "tests" / "golden" / "bard_greedy.json"
    target.write_text(json.dumps(cases, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(cases)} of {len(PROMPTS)} prompts kept in {target}")  # noqa: T201


@torch.inference_mode()
def continuation(model: torch.nn.Module, tokenizer: AutoTokenizer, prompt: str) -> dict[str, object] | None:
    """Prompt ids and the 64 greedy ids after them (end-of-text ids excluded from the choice); None if it was close."""
    messages = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    greedy: list[int] = []
    for _ in range(TOKENS):
        logits = model(torch.tensor([ids + greedy])).logits[0, -1]
        logits[[0, 2]] = -torch.inf
        best, second = logits.topk(2).values.tolist()
        if best - second < MARGIN:
            return None
        greedy.append(int(logits.argmax()))
    return {"prompt": prompt, "prompt_ids": ids, "greedy_ids": greedy}


if __name__ == "__main__":
    main()
