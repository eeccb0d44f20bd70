"""Write tests/vision/: one tiny random checkpoint per vision family, two pictures, and what transformers makes of them.

Needs torch, transformers and Pillow, and is run by hand when a family is added: ``python
tests/reference/make_vision.py [name ...]``. The tests only read what it wrote. One picture has exactly the size that
the model takes; the other one has to be resized, which transformers and llama.cpp do with code of their own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from make_checkpoints import (
    CHATML_TOKENS,
    GEMMA3_SHAPE,
    GEMMA_TOKENS,
    QWEN2_WORDS,
    TEXT,
    randomise,
    sentencepiece,
    with_bos,
)
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VISION = Path(__file__).parent.parent / "vision"
ANSWER_TOKENS = 12
QUESTION = "Who goes there?"
SMOLVLM_CHAT = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


GEMMA3_CHAT = (
    "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}"
    "{% for item in message['content'] %}{% if item['type'] == 'image' %}{{ '<start_of_image>' }}"
    "{% elif item['type'] == 'text' %}{{ item['text'] | trim }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
QWEN_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_level(words: str, specials: list[str], vocabulary: int) -> Tokenizer:
    """Byte-level BPE in which two line feeds are one token, as in the vocabularies of real models."""
    tokenizer = Tokenizer(models.BPE())
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(words), "isolated", invert=False), cut]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT.replace("\n", "\n\n")] * 2, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(specials)
    return tokenizer


def picture(width: int, height: int, seed: int) -> Image.Image:
    """Waves of three colours with a little noise: neither flat nor all edges."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    waves = [np.sin((a * x + b * y) / 9.0) for a, b in ((1, 0.3), (-0.4, 1), (0.7, 0.8))]
    noise = np.random.default_rng(seed).normal(0, 6, (height, width, 3))
    return Image.fromarray(np.clip(np.stack(waves, -1) * 90 + 128 + noise, 0, 255).astype(np.uint8))


@dataclass(frozen=True)
class Spec:
    """A checkpoint and its pictures. ``seed`` is one whose answers have no token that ends them."""

    model: str
    config: Callable[[Any], dict[str, Any]]
    processor: Callable[[], Any]
    pictures: dict[str, tuple[int, int]]
    seed: int


def smolvlm_processor() -> Any:
    parts = ["<row_1_col_1>", "<row_1_col_2>", "<row_2_col_1>", "<row_2_col_2>"]
    image = ["<fake_token_around_image>", "<image>", "<global-img>", *parts]
    tokenizer = byte_level(QWEN2_WORDS, ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *image], 399)
    tokens = {**CHATML_TOKENS, "eos_token": "<|im_end|>"}
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens)
    pictures = transformers.SmolVLMImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    return transformers.Idefics3Processor(pictures, wrapped, image_seq_len=4, chat_template=SMOLVLM_CHAT)


def ends(tokenizer: Any) -> dict[str, int]:
    return {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}


def smolvlm_config(tokenizer: Any) -> dict[str, Any]:
    return {
        "text_config": {
            "model_type": "llama", "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
            "vocab_size": len(tokenizer), "rms_norm_eps": 1e-5, **ends(tokenizer),
        },
        "vision_config": {
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
            "image_size": 32, "patch_size": 8,
        },
        "scale_factor": 2, "image_token_id": tokenizer.convert_tokens_to_ids("<image>"), "tie_word_embeddings": False,
        **ends(tokenizer),
    }  # fmt: skip


def gemma3_processor() -> Any:
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    tokenizer = with_bos(sentencepiece(specials, ["<start_of_image>", "<image_soft_token>", "<end_of_image>"],
                                       prefix=False, vocabulary=420), "<bos>")  # fmt: skip
    images = {"boi_token": "<start_of_image>", "image_token": "<image_soft_token>", "eoi_token": "<end_of_image>"}
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **GEMMA_TOKENS, extra_special_tokens=images
    )
    pictures = transformers.Gemma3ImageProcessorPil(size={"height": 56, "width": 56})
    return transformers.Gemma3Processor(pictures, wrapped, GEMMA3_CHAT, image_seq_length=4)


def gemma3_config(tokenizer: Any) -> dict[str, Any]:
    kinds = ("boi", "eoi", "image")
    return {
        "text_config": {**GEMMA3_SHAPE, "num_hidden_layers": 6, "vocab_size": len(tokenizer), **ends(tokenizer)},
        "vision_config": {
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 56, "patch_size": 7, "vision_use_head": False,
        },
        "mm_tokens_per_image": 4, **ends(tokenizer),
        **{f"{kind}_token_index": getattr(tokenizer, f"{kind}_token_id") for kind in kinds},
    }  # fmt: skip


def qwen2_5_vl_processor() -> Any:
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    marks = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = byte_level(QWEN2_WORDS, [*specials, *marks], 396)
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **CHATML_TOKENS)
    return OnlyPictures(transformers.Qwen2VLImageProcessorPil(), wrapped)


class OnlyPictures:
    """Qwen 2.5-VL's processor for prompts with pictures: the class itself asks for torchvision, for its videos."""

    def __init__(self, pictures: Any, tokenizer: Any) -> None:
        self.pictures, self.tokenizer = pictures, tokenizer
        tokenizer.chat_template = QWEN_CHAT

    def apply_chat_template(self, messages: Any, **settings: Any) -> str:
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, **settings))

    def __call__(self, text: list[str], images: list[list[Image.Image]], **settings: Any) -> dict[str, Any]:
        seen = self.pictures(images[0], return_tensors="pt")
        prompt = text[0]
        for grid in seen["image_grid_thw"]:
            prompt = prompt.replace("<|image_pad|>", "<|seen|>" * int(grid.prod() // 4), 1)
        tokens = self.tokenizer([prompt.replace("<|seen|>", "<|image_pad|>")], **settings)
        pad = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        return {**tokens, **seen, "mm_token_type_ids": (tokens["input_ids"] == pad).int()}

    def save_pretrained(self, folder: Path) -> None:
        self.pictures.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def qwen2_5_vl_config(tokenizer: Any) -> dict[str, Any]:
    marks = {"image": "<|image_pad|>", "video": "<|video_pad|>", "vision_start": "<|vision_start|>",
             "vision_end": "<|vision_end|>"}  # fmt: skip
    return {
        "text_config": {
            "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 3,
            "num_key_value_heads": 1, "max_position_embeddings": 256, "vocab_size": len(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
            "tie_word_embeddings": True, **ends(tokenizer),
        },
        "vision_config": {
            "depth": 4, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 48,
            "fullatt_block_indexes": [1, 3],
        },
        "tie_word_embeddings": True, **ends(tokenizer),
        **{f"{kind}_token_id": tokenizer.convert_tokens_to_ids(token) for kind, token in marks.items()},
    }  # fmt: skip


SPECS: dict[str, Spec] = {
    "smolvlm": Spec("SmolVLMForConditionalGeneration", smolvlm_config, smolvlm_processor,
                    {"fitting": (64, 64), "other": (90, 52)}, 7),
    "gemma3": Spec("Gemma3ForConditionalGeneration", gemma3_config, gemma3_processor,
                   {"fitting": (56, 56), "other": (90, 52)}, 61),
    "qwen2_5_vl": Spec("Qwen2_5_VLForConditionalGeneration", qwen2_5_vl_config, qwen2_5_vl_processor,
                       {"fitting": (140, 56), "other": (90, 152)}, 42),
}  # fmt: skip


def build(spec: Spec, tokenizer: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    kind = getattr(transformers, spec.model)
    config = kind.config_class(**spec.config(tokenizer), attn_implementation="eager")
    model = kind(config).eval()
    randomise(model, gelu=True)
    if "Gemma" in spec.model:  # or the last token alone would decide, whatever the picture
        for name, parameter in model.named_parameters():
            if "post_attention_layernorm" in name:
                parameter.data += 4.0
    model.generation_config = transformers.GenerationConfig(**ends(tokenizer))
    return model


def conversation(pictures: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image"}] * pictures + [{"type": "text", "text": QUESTION}]}]


def answer(model: Any, processor: Any, pictures: list[Image.Image]) -> dict[str, Any]:
    """Prompt, prompt ids, greedy ids, and by how much each led before the second best."""
    prompt = processor.apply_chat_template(conversation(len(pictures)), add_generation_prompt=True)
    inputs = processor(text=[prompt], images=[pictures], return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        made = model.generate(
            **inputs, max_new_tokens=ANSWER_TOKENS, do_sample=False, output_scores=True, return_dict_in_generate=True
        )
    ids = inputs["input_ids"][0].tolist()
    leads = [float(row.topk(2).values[0].diff().abs()) for row in made.scores]
    first = [float(f"{x:.6g}") for x in made.scores[0][0]]
    tokens = made.sequences[0].tolist()[len(ids) :]
    return {"prompt": prompt, "ids": ids, "answer": tokens, "leads": [round(x, 4) for x in leads], "logits": first}


def sizes() -> list[list[int]]:
    """Width and height of pictures, and of what the image processor of Qwen makes of them."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    given = [
        (1, 1),
        (10, 1000),
        (28, 28),
        (42, 70),
        (56, 56),
        (140, 56),
        (99, 33),
        (1000, 999),
        (1344, 1008),
        (4000, 30),
    ]
    made = [smart_resize(height, width, factor=28, min_pixels=56 * 56, max_pixels=28 * 28 * 1280)
            for width, height in given]  # fmt: skip
    return [[*one, wide, high] for one, (high, wide) in zip(given, made, strict=True)]


def make(name: str, spec: Spec) -> None:
    folder = VISION / name
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    processor = spec.processor()
    model = build(spec, processor.tokenizer, spec.seed)
    model.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
    model = type(model).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    cases: dict[str, Any] = {}
    shown = []
    for index, (case, size) in enumerate(spec.pictures.items()):
        image = picture(*size, seed=index)
        image.save(folder / f"{case}.png", optimize=True)
        shown.append(image)
        cases[case] = {"pictures": [case], **answer(model, processor, [image])}
    cases["both"] = {"pictures": list(spec.pictures), **answer(model, processor, shown)}
    golden = {"model": spec.model, "transformers": transformers.__version__, "question": QUESTION, "cases": cases}
    if name == "qwen2_5_vl":
        golden["sizes"] = sizes()
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    for path in folder.iterdir():
        path.chmod(0o644)
    print(name, sum(path.stat().st_size for path in folder.iterdir()), "bytes")  # noqa: T201
    for case, found in cases.items():
        print(case, len(found["ids"]), found["answer"], min(found["leads"]))  # noqa: T201


if __name__ == "__main__":
    torch.set_num_threads(1)
    for chosen in sys.argv[1:] or SPECS:
        make(chosen, SPECS[chosen])
