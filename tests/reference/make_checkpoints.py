"""Write tests/checkpoints/ and tests/golden/: one tiny random checkpoint per family, and what transformers makes of it.

Needs torch and transformers, and is run by hand when a family is added: ``python tests/reference/make_checkpoints.py
[name ...]``. The tests only read what it wrote. Weights are random but never accidentally zero or one, so that a
forgotten bias or norm shows in the logits.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TESTS = Path(__file__).parent.parent
VOCAB = 384
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA_CHAT = (
    "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + message['role'] + '\n' + message['content']"
    " | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# William Shakespeare, sonnets 18 and 116 (public domain).
TEXT = """Shall I compare thee to a summer's day? Thou art more lovely and more temperate:
Rough winds do shake the darling buds of May, And summer's lease hath all too short a date;
Sometime too hot the eye of heaven shines, And often is his gold complexion dimm'd;
And every fair from fair sometime declines, By chance or nature's changing course untrimm'd;
But thy eternal summer shall not fade, Nor lose possession of that fair thou ow'st;
Nor shall death brag thou wander'st in his shade, When in eternal lines to time thou grow'st:
So long as men can breathe or eyes can see, So long lives this, and this gives life to thee.
Let me not to the marriage of true minds Admit impediments. Love is not love
Which alters when it alteration finds, Or bends with the remover to remove:
O no! it is an ever-fixed mark, That looks on tempests and is never shaken;
It is the star to every wandering bark, Whose worth's unknown, although his height be taken.
Love's not Time's fool, though rosy lips and cheeks Within his bending sickle's compass come;
Love alters not with his brief hours and weeks, But bears it out even to the edge of doom.
If this be error and upon me proved, I never writ, nor no man ever loved. 0123456789"""

LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN2_WORDS = LLAMA3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}")


def byte_level(words: str | None, specials: list[str], *, ignore_merges: bool = False, nfc: bool = False) -> Tokenizer:
    """Byte-level BPE as GPT-2 has it, or with words cut by a regex as Llama 3 and Qwen 2 have it."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words is None)
    if words is not None:
        cut = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(words), "isolated", invert=False), cut])
    tokenizer.pre_tokenizer = cut
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    size = VOCAB - len(specials)
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXT.splitlines(), trainer)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(specials)
    return tokenizer


def sentencepiece(specials: list[str], later: list[str], *, prefix: bool, vocabulary: int = VOCAB) -> Tokenizer:
    """BPE over characters with ``▁`` for spaces and bytes for the rest, as converted SentencePiece models have it."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    fixed = len(specials) + 256 + len(later)
    trainer = trainers.BpeTrainer(vocab_size=vocabulary - fixed, show_progress=False)
    trained.train_from_iterator(TEXT.splitlines(), trainer)
    learned = json.loads(trained.to_str())["model"]
    pieces = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(learned["vocab"], key=lambda p: -len(p))]
    model = models.BPE(
        {piece: token for token, piece in enumerate(pieces)},
        [tuple(merge) for merge in learned["merges"]],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    spaces = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefix else spaces
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in specials + later])
    return tokenizer


def with_bos(tokenizer: Tokenizer, bos: str) -> Tokenizer:
    """Put ``bos`` before every text."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return tokenizer


CHATML_TOKENS = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
LLAMA_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
GEMMA_TOKENS = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
PHI_TOKENS = {**LLAMA_TOKENS, "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
LLAMA3_TOKENS = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}


def chatml() -> Tokenizer:
    return byte_level(QWEN2_WORDS, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], nfc=True)


def gpt2() -> Tokenizer:
    return byte_level(None, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])


def llama3() -> Tokenizer:
    specials = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    return with_bos(byte_level(LLAMA3_WORDS, specials, ignore_merges=True), "<|begin_of_text|>")


def llama2() -> Tokenizer:
    return with_bos(sentencepiece(["<unk>", "<s>", "</s>"], [], prefix=True), "<s>")


def phi() -> Tokenizer:
    later = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"]
    return sentencepiece(["<unk>", "<s>", "</s>"], later, prefix=True)


def gemma() -> Tokenizer:
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    return with_bos(sentencepiece(specials, [], prefix=False), "<bos>")


@dataclass(frozen=True)
class Spec:
    """One checkpoint. ``contexts``: for each golden prompt, its length and the context it is to be run in."""

    model: str
    config: dict[str, Any]
    tokenizer: Callable[[], Tokenizer]
    tokens: dict[str, str]
    template: str = CHATML
    dtype: torch.dtype = torch.bfloat16
    shard: str = "1GB"
    eos: list[str] = field(default_factory=list)
    contexts: tuple[tuple[int, int], ...] = ((6, 256), (40, 256))


SHAPE = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 128, "vocab_size": VOCAB}  # fmt: skip
GEMMA_SHAPE = {**SHAPE, "hidden_size": 48, "intermediate_size": 64, "head_dim": 16, "query_pre_attn_scalar": 16}
GEMMA3_SHAPE = {**GEMMA_SHAPE, "hidden_size": 32, "num_hidden_layers": 7, "sliding_window": 8, "rope_parameters": {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
}}  # fmt: skip
PHI_ROPE = {"rope_type": "longrope", "rope_theta": 10_000.0, "partial_rotary_factor": 0.75,
            "original_max_position_embeddings": 256,
            "short_factor": [1.0, 1.05, 1.1, 1.2, 1.3, 1.5], "long_factor": [1.1, 1.3, 1.8, 2.6, 3.1, 3.9]}  # fmt: skip

SPECS: dict[str, Spec] = {
    "gpt2": Spec("GPT2LMHeadModel", {"n_embd": 64, "n_layer": 1, "n_head": 4, "n_positions": 64, "n_inner": 96,
                 "vocab_size": VOCAB}, gpt2, CHATML_TOKENS, dtype=torch.float32),
    "llama": Spec("LlamaForCausalLM", {**SHAPE, "hidden_size": 32, "tie_word_embeddings": False}, llama2,
                  LLAMA_TOKENS, dtype=torch.float32, eos=["</s>"]),
    "llama3": Spec("LlamaForCausalLM", {**SHAPE, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True,
                   "rope_parameters": {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0,
                                       "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                       "original_max_position_embeddings": 32}},
                   llama3, LLAMA3_TOKENS, eos=["<|end_of_text|>", "<|eot_id|>"]),
    "smollm2": Spec("LlamaForCausalLM", {**SHAPE, "tie_word_embeddings": True}, gpt2, CHATML_TOKENS, shard="60KB",
                    eos=["<|im_end|>"]),
    "mistral": Spec("MistralForCausalLM", {**SHAPE, "hidden_size": 48, "head_dim": 32, "sliding_window": None}, llama2,
                    LLAMA_TOKENS, dtype=torch.float16),
    "qwen2": Spec("Qwen2ForCausalLM", {**SHAPE, "tie_word_embeddings": True, "rope_parameters": {
                  "rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 32}},
                  chatml, CHATML_TOKENS, eos=["<|im_end|>", "<|endoftext|>"]),
    "qwen3": Spec("Qwen3ForCausalLM", {**SHAPE, "head_dim": 32, "tie_word_embeddings": True}, chatml, CHATML_TOKENS,
                  eos=["<|im_end|>", "<|endoftext|>"]),
    "gemma": Spec("GemmaForCausalLM", GEMMA_SHAPE, gemma, GEMMA_TOKENS, GEMMA_CHAT, eos=["<eos>", "<end_of_turn>"]),
    "gemma2": Spec("Gemma2ForCausalLM", {**GEMMA_SHAPE, "sliding_window": 8}, gemma, GEMMA_TOKENS, GEMMA_CHAT,
                   eos=["<eos>", "<end_of_turn>"]),
    "gemma3": Spec("Gemma3ForCausalLM", GEMMA3_SHAPE, gemma, GEMMA_TOKENS, GEMMA_CHAT, eos=["<eos>", "<end_of_turn>"]),
    "gemma3_vision": Spec("Gemma3ForConditionalGeneration", {
                   "text_config": {**GEMMA3_SHAPE, "vocab_size": VOCAB, "num_hidden_layers": 6},
                   "vision_config": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
                                     "num_attention_heads": 2, "image_size": 28, "patch_size": 14},
                   "mm_tokens_per_image": 4}, gemma, GEMMA_TOKENS, GEMMA_CHAT),
    "phi3": Spec("Phi3ForCausalLM", {**SHAPE, "hidden_size": 64, "max_position_embeddings": 1024,
                 "original_max_position_embeddings": 256, "rope_parameters": PHI_ROPE, "sliding_window": None,
                 "pad_token_id": 0}, phi, PHI_TOKENS, eos=["<|end|>", "<|endoftext|>"],
                 contexts=((6, 256), (40, 256), (300, 512))),
    "smollm3": Spec("SmolLM3ForCausalLM", {**SHAPE, "hidden_size": 48, "num_hidden_layers": 4, "pad_token_id": 0},
                    chatml, CHATML_TOKENS, eos=["<|im_end|>"]),
    "olmo2": Spec("Olmo2ForCausalLM", {**SHAPE, "hidden_size": 48, "pad_token_id": 0}, gpt2, CHATML_TOKENS),
}  # fmt: skip


def randomise(model: torch.nn.Module, gelu: bool) -> None:
    """Matrices of about unit gain; biases and norms around their usual value, but never at it.

    ggml looks GELU up in a table of f16, good for three digits: with ``gelu`` the MLP adds less to the stream, so that
    the logits measure the conversion and not that table.
    """
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            scale = 1.0 if "embed" in name or "wte" in name or "lm_head" in name else 1.2
            scale = 0.25 if gelu and ("down_proj" in name or "mlp.c_proj" in name) else scale
            torch.nn.init.normal_(parameter, 0.0, scale / parameter.shape[-1] ** 0.5)
        else:
            usual = float(parameter.detach().mean().round())
            usual = -0.8 if gelu and "post_feedforward_layernorm" in name else usual  # Gemma multiplies with 1 + weight
            torch.nn.init.normal_(parameter, usual, 0.1)


def build(spec: Spec, tokenizer: Tokenizer) -> Any:
    torch.manual_seed(42)
    ids = {f"{kind}_id": tokenizer.token_to_id(token) for kind, token in spec.tokens.items() if kind != "unk_token"}
    kind = getattr(transformers, spec.model)
    config = kind.config_class(**{**ids, **spec.config}, attn_implementation="eager")
    model = kind(config).eval()
    randomise(model, gelu=spec.model.startswith(("Gemma", "GPT2")))
    eos = [tokenizer.token_to_id(token) for token in spec.eos] or ids["eos_token_id"]
    model.generation_config = transformers.GenerationConfig(
        **{**ids, "eos_token_id": eos}, do_sample=True, temperature=0.7, top_p=0.9, top_k=40
    )
    return model.to(spec.dtype)


def golden(spec: Spec, folder: Path) -> dict[str, Any]:
    """Last-token logits of transformers, computed in f32 from the saved weights."""
    kind = getattr(transformers, spec.model)
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(7)
    prompts = []
    for length, context in spec.contexts:
        tokens = torch.randint(8, VOCAB - 8, (1, length), generator=generator)
        with torch.no_grad():
            logits = model(input_ids=tokens, use_cache=False).logits[0, -1]
        prompts.append(
            {"tokens": tokens[0].tolist(), "context": context, "logits": [float(f"{x:.8g}") for x in logits]}
        )
    return {"model": spec.model, "transformers": transformers.__version__, "prompts": prompts}


def make(name: str, spec: Spec) -> None:
    tokenizer = spec.tokenizer()
    model = build(spec, tokenizer)
    folder = TESTS / "checkpoints" / name
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **spec.tokens)
    wrapped.chat_template = spec.template
    wrapped.save_pretrained(folder)
    model.save_pretrained(folder, max_shard_size=spec.shard)
    if "vision_config" in spec.config:
        side = spec.config["vision_config"]["image_size"]
        transformers.Gemma3ImageProcessorPil(size={"height": side, "width": side}).save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)
    (TESTS / "golden").mkdir(exist_ok=True)
    (TESTS / "golden" / f"{name}.json").write_text(json.dumps(golden(spec, folder)) + "\n")
    print(name, sum(path.stat().st_size for path in folder.iterdir()), "bytes")  # noqa: T201


if __name__ == "__main__":
    torch.set_num_threads(1)
    for chosen in sys.argv[1:] or SPECS:
        make(chosen, SPECS[chosen])
