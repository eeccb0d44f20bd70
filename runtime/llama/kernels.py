"""Whether llama.cpp's kernels for AMX survive here: proven once in a child process, never in the caller's.

GCC (12 to 14 at least) drops most of the tile configuration that ggml hands to ``ldtilecfg``, as a dead store; a build
made that way on a CPU with AMX dies at its first quantized matrix product (llama.cpp pull request 26954). Weights that
stay out of the extra buffers, ``use_extra_bufts=False``, do not go that way.
"""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ...convert import child as child_process
from ...convert import gguf
from ...convert.errors import StorageError
from ...convert.files import appearing
from ...convert.ggml import TYPES
from .backend import compiled
from .library import levels, library

PROOF_LIMIT_S = 60
WIDTH = 64
TOKENS = 64
ONE_BLOCK = 32


@functools.cache
def extra_buffers_work() -> bool:
    """False when a quantized product in the extra buffers would kill the process. The verdict is kept on disk."""
    if b"AMX_INT8 = 1" not in library().llama_print_system_info():
        return True
    kept = kept_path("amx")
    if kept.exists():
        return kept.read_text() == "good"
    verdict = proof_exit_code() == 0
    try:
        with appearing(kept) as partial:
            partial.write_text("good" if verdict else "bad")
    except StorageError:
        return verdict  # proven again next time
    return verdict


def compute_rightly(file: gguf.GGUF) -> bool:
    """Whether products in the extra buffers are right for all weights of a file: those for AMX are not, from 32 tokens
    on, where a row of a weight is a single block of 32. No published model has such rows."""
    narrow = any(info.type.block > 1 and info.shape[-1] == ONE_BLOCK for info in file.tensors.values())
    return not narrow or b"AMX_INT8 = 1" not in library().llama_print_system_info()


def repacking_pays() -> bool:
    """Where nothing was measured: our products read weights as they lie in the file, llama.cpp's do better with them in
    the extra buffers."""
    return not levels().products


def kept_path(kind: str, circumstances: str = "") -> Path:
    """Where a finding about this machine is kept, in the XDG cache folder.

    Under other circumstances, with another build of the library or one elsewhere, it has another name.
    """
    text = f"{build()} {circumstances}"
    return cache_folder() / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def build() -> str:
    """What tells this build of the library, and of what we compute ourselves, from others."""
    binary = Path(str(library().__file__)).parent / "lib" / "libggml-cpu.so"
    facts = binary.stat() if binary.exists() else None
    own = compiled()
    ours = (*levels(), Path(own._name).stat().st_mtime_ns) if own and any(levels()) else ""
    return f"{binary} {facts and (facts.st_size, facts.st_mtime_ns)} {library().llama_print_system_info()!r} {ours}"


def cache_folder() -> Path:
    """Ours in the XDG cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ingle"


def proof_exit_code() -> int:
    """Of the child that reads a prompt with a tiny Q8_0 model: 0, or what killed it."""
    with tempfile.TemporaryDirectory(prefix="ingle-") as folder:
        path = Path(folder, "proof.gguf")
        gguf.write(path, _metadata(), _tensors())
        child = subprocess.run(
            child_process.command(f"{__name__}:prove", str(path)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=child_process.environment(),
            timeout=PROOF_LIMIT_S,
        )
    return child.returncode


def prove() -> None:
    """The child: read a prompt with the model of the last argument. It lives, or it does not."""
    lib = library()
    model = lib.llama_model_load_from_file(sys.argv[-1].encode(), lib.llama_model_default_params())
    params = lib.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = TOKENS
    params.n_threads = params.n_threads_batch = 1
    context = lib.llama_init_from_model(model, params)
    tokens = (lib.llama_token * TOKENS)(*range(TOKENS))
    sys.exit(lib.llama_decode(context, lib.llama_batch_get_one(tokens, TOKENS)))


def _metadata() -> dict[str, gguf.Value]:
    """The smallest Llama, without a vocabulary."""
    sizes = {"context_length": TOKENS, "embedding_length": WIDTH, "block_count": 1, "feed_forward_length": WIDTH}
    heads = {"attention.head_count": 1, "vocab_size": TOKENS, "rope.dimension_count": WIDTH}
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "no_vocab",
        "llama.attention.layer_norm_rms_epsilon": 1e-6,
        **{f"llama.{key}": value for key, value in (sizes | heads).items()},
    }


def _tensors() -> Iterator[gguf.TensorPlan]:
    """Zeros: what is computed does not matter, only how."""
    matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    yield _zeros("token_embd", "Q8_0", (TOKENS, WIDTH))
    yield _zeros("output", "Q8_0", (TOKENS, WIDTH))
    yield from (_zeros(f"blk.0.{name}", "Q8_0", (WIDTH, WIDTH)) for name in matrices)
    yield from (_zeros(name, "F32", (WIDTH,)) for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"))


def _zeros(name: str, kind: str, shape: tuple[int, ...]) -> gguf.TensorPlan:
    import numpy as np

    plan_type = TYPES[kind]
    return gguf.TensorPlan(f"{name}.weight", shape, plan_type, lambda: [np.zeros(plan_type.nbytes(shape), np.uint8)])
