"""GGUF files of real shapes with random weights: speed does not depend on what the weights say.

    python -m bench.make_model build/bench --shape smollm-135m --type Q8_0

The checkpoint is written as transformers would save it, and goes through ingle's own convert and quantize.
"""

from __future__ import annotations

import argparse
import itertools
import json
import string
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from ingle.convert import convert
from ingle.quantize import quantize
from safetensors.numpy import save_file

from .other_shapes import OTHERS, Other

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """The numbers of a published model that decide its speed."""

    architecture: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    context: int
    rope_theta: float
    attention_bias: bool
    tied: bool = True

    @property
    def kv_width(self) -> int:
        return self.hidden // self.heads * self.kv_heads


TINY = "tiny-32k"
"""Of nobody's model: the kernels take no time, and the context is long."""

LONG = "smollm-135m-16k"
"""SmolLM-135M with a window for long prompts."""

FOR_SCENARIOS = (TINY, LONG)
"""Shapes that say nothing of a published model's speed."""

SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "smollm-135m": Shape("Llama", 576, 30, 9, 3, 1536, 49152, 2048, 1e4, False),
        TINY: Shape("Llama", 64, 2, 2, 1, 128, 49152, 32768, 1e4, False),
        LONG: Shape("Llama", 576, 30, 9, 3, 1536, 49152, 16384, 1e4, False),
        "qwen2.5-0.5b": Shape("Qwen2", 896, 24, 14, 2, 4864, 151936, 32768, 1e6, True),
        "qwen1.5-0.5b": Shape("Qwen2", 1024, 24, 16, 16, 2816, 151936, 32768, 1e6, True),
    }
)


def config(shape: Shape) -> dict[str, Any]:
    return {
        "architectures": [f"{shape.architecture}ForCausalLM"],
        "model_type": shape.architecture.lower(),
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.context,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "tie_word_embeddings": shape.tied,
        "use_sliding_window": False,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "dtype": "float16",
    }


def tensor_shapes(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape (output rows first) of each tensor of a Llama-like checkpoint."""
    hidden, wide, kv = shape.hidden, shape.intermediate, shape.kv_width
    yield "model.embed_tokens.weight", (shape.vocabulary, hidden)
    yield "model.norm.weight", (hidden,)
    for layer in range(shape.layers):
        block = f"model.layers.{layer}"
        yield f"{block}.input_layernorm.weight", (hidden,)
        yield f"{block}.post_attention_layernorm.weight", (hidden,)
        for name, rows in (("q_proj", hidden), ("k_proj", kv), ("v_proj", kv)):
            yield f"{block}.self_attn.{name}.weight", (rows, hidden)
            if shape.attention_bias:
                yield f"{block}.self_attn.{name}.bias", (rows,)
        yield f"{block}.self_attn.o_proj.weight", (hidden, hidden)
        yield f"{block}.mlp.gate_proj.weight", (wide, hidden)
        yield f"{block}.mlp.up_proj.weight", (wide, hidden)
        yield f"{block}.mlp.down_proj.weight", (hidden, wide)
    if not shape.tied:
        yield "lm_head.weight", (shape.vocabulary, hidden)


def tensors(shape: Shape | Other, seed: int = 0) -> dict[str, np.ndarray[Any, np.dtype[np.float16]]]:
    """Random weights of a trained model's size, so that activations neither vanish nor overflow."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, size in shape.tensors if isinstance(shape, Other) else tensor_shapes(shape):
        values = random.standard_normal(size, dtype=np.float32)
        weights[name] = (1 + 0.1 * values if len(size) == 1 and "bias" not in name else 0.02 * values).astype(
            np.float16
        )
    return weights


def byte_alphabet() -> list[str]:
    """The 256 characters that stand for bytes in byte-level BPE (GPT-2's map: printable ones stand for themselves)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = itertools.count(0x100)
    return [chr(byte) if byte in printable else chr(next(moved)) for byte in range(256)]


def merges(count: int) -> Iterator[tuple[str, str]]:
    """Merges of lower-case letters: all pairs, then a pair and a letter, then two pairs."""
    letters = string.ascii_lowercase
    pairs = ["".join(pair) for pair in itertools.product(letters, letters)]
    ways = itertools.chain(
        itertools.product(letters, letters), itertools.product(pairs, letters), itertools.product(pairs, pairs)
    )
    return itertools.islice(ways, count)


def tokenizer(vocabulary: int) -> dict[str, Any]:
    """A working byte-level BPE tokenizer of exactly ``vocabulary`` pieces, in the format of tokenizer.json."""
    alphabet = byte_alphabet()
    joins = list(merges(vocabulary - len(SPECIAL) - len(alphabet)))
    pieces = [*SPECIAL, *alphabet, *("".join(join) for join in joins)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": text, **flags, "special": True} for i, text in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {piece: index for index, piece in enumerate(pieces)},
            "merges": [list(join) for join in joins],
        },
    }


def tokenizer_config() -> dict[str, Any]:
    bos, _, eos = SPECIAL
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "eos_token": eos,
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": False,
    }


Weights = Mapping[str, "np.ndarray[Any, np.dtype[np.float16]]"]


def write_checkpoint(shape: Shape | Other, folder: Path, weights: Weights | None = None) -> None:
    for name, content in (
        ("config", dict(shape.config) if isinstance(shape, Other) else config(shape)),
        ("tokenizer", tokenizer(shape.vocabulary)),
        ("tokenizer_config", tokenizer_config()),
        ("generation_config", {"bos_token_id": 0, "eos_token_id": 2}),
    ):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    save_file(dict(weights or tensors(shape)), folder / "model.safetensors", metadata={"format": "pt"})


def make(folder: Path, shape: str, kind: str) -> Path:
    """``folder/SHAPE-TYPE.gguf``, made unless it is there."""
    found = OTHERS.get(shape) or SHAPES[shape]
    return make_of(folder, shape, found, kind, lambda: tensors(found))


def make_of(folder: Path, name: str, shape: Shape | Other, kind: str, weights: Callable[[], Weights]) -> Path:
    """``folder/NAME-TYPE.gguf`` of these weights, made unless it is there."""
    target = folder / f"{name}-{kind}.gguf"
    if target.exists():
        return target
    base = folder / f"{name}-f16.gguf"
    if not base.exists():
        with tempfile.TemporaryDirectory() as checkpoint:
            write_checkpoint(shape, Path(checkpoint), weights())
            convert(Path(checkpoint), base, "f16")
    if kind != "f16":
        quantize(base, target, kind)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=[*SHAPES, *OTHERS], default="smollm-135m")
    parser.add_argument("--type", default="Q8_0")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    print(make(chosen.folder, chosen.shape, chosen.type))


if __name__ == "__main__":
    main()
