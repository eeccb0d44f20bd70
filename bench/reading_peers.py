"""Who reads texts: this project in a program and as a server, llama-server, sentence-transformers and onnxruntime.

Programs are child processes that load a model, say so, and do the whole work once for every line they read; what they
take for it they measure themselves. The last two run in an interpreter of the user's, which has them.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from .client import ask
from .peers import Server

EMBED, RERANK = "embeddings", "rerank"

HEAD = """
import json, sys, time
import numpy as np
kind, model, work, threads = sys.argv[1], sys.argv[2], json.load(open(sys.argv[3])), int(sys.argv[4])
texts = work["texts"] if kind == "embeddings" else [[work["query"], text] for text in work["texts"]]
"""
TAIL = """
print("ready", flush=True)
for line in sys.stdin:
    started = time.perf_counter()
    found = run()
    seconds = time.perf_counter() - started
    np.save(line.strip(), np.asarray(found, np.float32))
    print(json.dumps(seconds), flush=True)
"""
INGLE = """
from pathlib import Path
from ingle.runtime import TaskModel
loaded = TaskModel(Path(model), threads=threads)
def run():
    if kind == "embeddings":
        return [one["embedding"] for one in loaded.task("embeddings", work["texts"])]
    found = loaded.task("rerank", {"query": work["query"], "documents": work["texts"]})["results"]
    return [one["logit"] for one in sorted(found, key=lambda one: one["index"])]
"""
SENTENCE_TRANSFORMERS = """
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
torch.set_num_threads(threads)
if kind == "embeddings":
    loaded = SentenceTransformer(model, device="cpu")
    run = lambda: loaded.encode(texts, batch_size=32, show_progress_bar=False)
else:
    loaded = CrossEncoder(model, device="cpu", activation_fn=torch.nn.Identity())
    run = lambda: loaded.predict(texts, batch_size=32, show_progress_bar=False)
"""
# The graph is fused as onnxruntime's own tool for transformers does it, then its weights become int8, one scale per
# column, and its activations when they come: the fastest of what its documents describe.
EXPORT = """
import os, tempfile
import onnx, torch, transformers
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.optimizer import optimize_model
folder, out, kind = sys.argv[1:4]
name = "AutoModel" if kind == "embeddings" else "AutoModelForSequenceClassification"
model = getattr(transformers, name).from_pretrained(folder, attn_implementation="eager").eval()
class Plain(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = model
    def forward(self, input_ids, attention_mask, token_type_ids):
        return self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)[0]
names = ["input_ids", "attention_mask", "token_type_ids"]
axes = {key: {0: "texts", 1: "tokens"} for key in names}
with tempfile.TemporaryDirectory() as place:
    plain, fused = os.path.join(place, "plain.onnx"), os.path.join(place, "fused.onnx")
    sample = tuple(torch.ones((2, 8), dtype=torch.long) for _ in names)
    torch.onnx.export(Plain(), sample, plain, input_names=names, output_names=["out"], opset_version=17,
                      dynamic_axes={**axes, "out": {0: "texts"}}, dynamo=False)
    shape = model.config
    optimize_model(plain, "bert", num_heads=shape.num_attention_heads, hidden_size=shape.hidden_size,
                   opt_level=0).save_model_to_file(fused)
    quantize_dynamic(fused, out, per_channel=True, weight_type=QuantType.QInt8,
                     extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT})
"""
ONNXRUNTIME = """
import onnxruntime
from tokenizers import Tokenizer
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
tokenizer = Tokenizer.from_file(work["tokenizer"])
tokenizer.no_truncation()
tokenizer.enable_padding()
def run():
    order = sorted(range(len(texts)), key=lambda index: -len(work["texts"][index]))
    found = [None] * len(texts)
    for start in range(0, len(order), 32):
        chosen = order[start : start + 32]
        encoded = tokenizer.encode_batch([texts[index] for index in chosen])
        mask = np.array([one.attention_mask for one in encoded])
        feed = {"input_ids": np.array([one.ids for one in encoded]), "attention_mask": mask,
                "token_type_ids": np.array([one.type_ids for one in encoded])}
        out = session.run(None, feed)[0]
        if kind == "embeddings":
            out = (out * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
            out = out / np.linalg.norm(out, axis=1, keepdims=True)
        for index, row in zip(chosen, out):
            found[index] = row
    return found
"""


@dataclass(frozen=True)
class Work:
    """Texts to embed, or to rank by a query; the file holds them as JSON for the programs."""

    kind: str
    texts: Sequence[str]
    query: str
    file: Path
    tokenizer: Path

    def write(self) -> Work:
        content = {"texts": list(self.texts), "query": self.query, "tokenizer": str(self.tokenizer)}
        self.file.write_text(json.dumps(content), encoding="utf-8")
        return self


class Program:
    """A contender in a process of its own; ``found`` is what it made of the texts the last time."""

    def __init__(self, python: str, code: str, model: Path, work: Work, threads: int) -> None:
        self._out = work.file.with_suffix(".npy")
        self._count = len(work.texts)
        command = [python, "-c", HEAD + code + TAIL, work.kind, str(model), str(work.file), str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process = psutil.Process(self._process.pid)
        self.found: NDArray[np.float32] = np.zeros(0, np.float32)
        if self._answer() != "ready":
            raise RuntimeError(f"a contender ended with code {self._process.wait()} before it was ready")

    def measure(self) -> float:
        """Texts per second."""
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(f"{self._out}\n")
        stdin.flush()
        seconds = float(self._answer())
        self.found = np.load(self._out)
        return self._count / seconds

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _answer(self) -> str:
        stdout = self._process.stdout
        assert stdout is not None
        return stdout.readline().strip()


@dataclass
class Client:
    """A contender behind HTTP: one request with all the texts, as a client sends them."""

    server: Server
    work: Work

    def measure(self) -> float:
        """Texts per second, from the request to the end of the answer."""
        path = "/v1/embeddings" if self.work.kind == EMBED else "/v1/rerank"
        answer = asyncio.run(ask(f"{self.server.url}{path}", self.body()))
        self.found = vectors(answer.json()) if self.work.kind == EMBED else scores(answer.json())
        return len(self.work.texts) / (answer.ended - answer.sent)

    def body(self) -> dict[str, Any]:
        if self.work.kind == EMBED:
            return {"model": self.server.model, "input": list(self.work.texts)}
        return {"model": self.server.model, "query": self.work.query, "documents": list(self.work.texts)}


def vectors(answer: Mapping[str, Any]) -> NDArray[np.float32]:
    return np.array([one["embedding"] for one in answer["data"]], np.float32)


def scores(answer: Mapping[str, Any]) -> NDArray[np.float32]:
    """In the order of the documents."""
    ranked = sorted(answer["results"], key=lambda one: int(one["index"]))
    return np.array([one["relevance_score"] for one in ranked], np.float32)


def export(python: str, folder: Path, out: Path, kind: str) -> Path:
    """The int8 graph of a checkpoint, made once."""
    if not out.exists():
        command = [python, "-c", "import sys" + EXPORT, str(folder), str(out), kind]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out


Measure = Callable[[], float]
