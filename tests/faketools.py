"""A checkpoint of a few hundred kilobytes, and stand-ins for converting, proving and quantizing it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingle.convert import gguf
from ingle.convert.files import appearing
from ingle.convert.progress import Progress
from ingle.runtime.store.checkpoint import Checkpoint
from ingle.runtime.store.stages import Importance, Plain, Prove, Tools


def safetensors(parameters: int, name: str = "w") -> bytes:
    """A file with one bf16 tensor of that many weights."""
    header = json.dumps({name: {"dtype": "BF16", "shape": [parameters], "data_offsets": [0, 2 * parameters]}}).encode()
    block = hashlib.sha256(name.encode()).digest()
    data = (block * (2 * parameters // len(block) + 1))[: 2 * parameters]
    return len(header).to_bytes(8, "little") + header + data


def checkpoint(parameters: int = 100_000) -> dict[str, bytes]:
    return {
        "config.json": b'{"model_type": "llama"}',
        "tokenizer.json": b"{}" * 10,
        "README.md": b"---\nlicense: apache-2.0\n---\n",
        "model.safetensors": safetensors(parameters),
        "training_args.bin": b"not needed",
    }


def sharded() -> dict[str, bytes]:
    files = checkpoint()
    del files["model.safetensors"]
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    shards = {shard: safetensors(50_000, name) for name, shard in weight_map.items()}
    return files | shards | {"model.safetensors.index.json": json.dumps({"weight_map": weight_map}).encode()}


def bytes_of(checkpoint: Checkpoint, file: Path) -> bytes:
    """Of a file of weights, waited for if it is on its way."""
    return checkpoint.arrive(file)[:] if checkpoint.arrive else file.read_bytes()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@dataclass
class Workmen:
    """Counts what was done; ``tools`` is what the store is given."""

    done: list[str] = field(default_factory=list)

    @property
    def tools(self) -> Tools:
        return Tools(self.convert, self.prove, self.quantize, self.inspect)

    def inspect(self, folder: Path) -> None:
        assert (folder / "config.json").exists()

    def convert(self, checkpoint: Checkpoint, out: Path, dtype: str, prove: Prove, progress: Progress) -> None:
        self._make(f"convert {dtype}", checkpoint, out, prove, progress)

    def quantize(
        self, checkpoint: Checkpoint, out: Path, kind: str, prove: Prove, progress: Progress, _: Importance | None
    ) -> None:
        self._make(f"quantize {kind}", checkpoint, out, prove, progress)

    def prove(self, folder: Path, gguf: Path, progress: Progress, plain: Plain | None) -> dict[str, Any]:
        self.done.append("prove")
        return {"strings": 3, "bytes": gguf.stat().st_size}

    def _make(self, what: str, checkpoint: Checkpoint, out: Path, prove: Prove, progress: Progress) -> None:
        self.done.append(what)
        stage, kind = what.split(" ")
        weights = b"".join(bytes_of(checkpoint, path) for path in sorted(checkpoint.folder.glob("*.safetensors")))
        progress(stage, 0, len(weights))
        with appearing(out) as partial:
            partial.write_bytes(b"GGUF" + kind.encode() + weights)
            prove(partial, None)


def tiny_gguf(path: Path) -> Path:
    metadata = {
        "general.architecture": "llama",
        "general.file_type": 15,
        "llama.context_length": 512,
        "general.license": "mit",
        "tokenizer.chat_template": "{{ messages }}",
        "tokenizer.ggml.tokens": ["a", "b", "c"],
    }
    gguf.write(path, metadata, [])
    return path
