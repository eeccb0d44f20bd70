"""Train ``scribe``, a model of 15.7 million weights, on the sources of Python's standard library.

    python train_scribe.py FOLDER [--seconds 280]

FOLDER/scribe becomes a checkpoint, FOLDER/scribe-calibration.txt and FOLDER/scribe-heldout.txt two texts that the model
never saw. Run again, it goes on where it was; on one thread of an EPYC (Zen 4) all of it takes some ten minutes.
Needs torch and transformers. docs/quantization.md measures on it what quantizing loses; it is not shipped.
"""

from __future__ import annotations

import argparse
import random
import sys
import sysconfig
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY, LENGTH, BATCH = 6144, 256, 8
STEPS, WARM_UP, COOL_DOWN = 190, 12, 70
LEFT_OUT = {"test", "tests", "idlelib", "site-packages", "lib2to3", "encodings"}
MOST_BYTES, TEXT_BYTES = 48_000, 48_000


def sources() -> list[str]:
    """The modules of the standard library, tests and tables left out, in an order that depends on their names only."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = [path for path in sorted(root.rglob("*.py")) if not LEFT_OUT & set(path.relative_to(root).parts)]
    random.Random(0).shuffle(paths)
    return [path.read_text(encoding="utf-8", errors="replace")[:MOST_BYTES] for path in paths]


def tokenizer(texts: list[str]) -> Tokenizer:
    """Byte-level BPE, as GPT-2 has it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    made.train_from_iterator(texts, trainer)
    return made


def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config)


def optimizers(net: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the rest."""
    matrices = [weight for weight in net.model.layers.parameters() if weight.ndim == 2]
    taken = set(map(id, matrices))
    rest = [weight for weight in net.parameters() if id(weight) not in taken]
    return [
        torch.optim.Muon(matrices, lr=0.02, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=2e-3, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def pace(step: int) -> float:
    """Share of the learning rate: up, level, down."""
    return min(1.0, (step + 1) / WARM_UP, (STEPS - step) / COOL_DOWN)


def train(net: LlamaForCausalLM, tokens: torch.Tensor, state: Path, seconds: float) -> int:
    """Returns the steps that are done."""
    chosen, step = optimizers(net), 0
    if state.exists():
        kept = torch.load(state)
        net.load_state_dict(kept["net"])
        for one, saved in zip(chosen, kept["optimizers"], strict=True):
            one.load_state_dict(saved)
        step = kept["step"]
    rates = [one.param_groups[0]["lr"] for one in optimizers(net)]
    until = time.monotonic() + seconds
    while step < STEPS and time.monotonic() < until:
        for one, rate in zip(chosen, rates, strict=True):
            one.param_groups[0]["lr"] = rate * pace(step)
        starts = torch.randint(len(tokens) - LENGTH, (BATCH,), generator=torch.Generator().manual_seed(step))
        batch = torch.stack([tokens[start : start + LENGTH] for start in starts.tolist()])
        with torch.autocast("cpu", torch.bfloat16):
            loss = net(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for one in chosen:
            one.step()
            one.zero_grad()
        if step % 10 == 0:
            sys.stderr.write(f"step {step} of {STEPS}: {loss.item():.3f} nats per token\n")
        step += 1
    torch.save({"net": net.state_dict(), "optimizers": [one.state_dict() for one in chosen], "step": step}, state)
    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long; run again to go on")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    texts = sources()
    kept, seen = texts[::12], [text for at, text in enumerate(texts) if at % 12]
    for name, part in (("calibration", kept[::2]), ("heldout", kept[1::2])):
        (folder / f"scribe-{name}.txt").write_text("\n".join(part)[:TEXT_BYTES], encoding="utf-8")
    words = tokenizer(seen)
    tokens = torch.tensor([token for text in seen for token in (*words.encode(text).ids, 0)])
    net = model()
    sys.stderr.write(f"{net.num_parameters():,} weights, {len(tokens):,} tokens\n")
    if train(net, tokens, folder / "scribe.state", options.seconds) < STEPS:
        return
    net.to(torch.bfloat16).save_pretrained(folder / "scribe")
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|end|>").save_pretrained(folder / "scribe")


if __name__ == "__main__":
    main()
