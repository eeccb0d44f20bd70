"""The program of a worker of :mod:`.kernels`. Nothing but the standard library is imported, so that it starts at once
and takes little memory. Its arguments: the file descriptor of the shared memory, ggml's base library, and the file.

A task is one line on stdin, the JSON of a :class:`.kernels.Task`; the answer one line on stdout. It ends with stdin.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import sys
import zlib
from typing import Any

BLOCK_WEIGHTS = 1 << 16
"""Converted and quantized at a time: 256 KiB of f32, which stay in a core's cache."""
F32, BF16 = 0, 30  # ggml's ids


class Worker:
    """memory: shared with the parent. file: written at any offset. ggml: its base library."""

    def __init__(self, memory: mmap.mmap, file: int, ggml: ctypes.CDLL) -> None:
        self._memory, self._file, self._ggml = memory, file, ggml
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self._numbers = (ctypes.c_float * BLOCK_WEIGHTS)()
        self._made = bytearray()

    def do(self, task: dict[str, int]) -> dict[str, Any]:
        """Convert, look, write; the answer."""
        try:
            return self._do(task)
        except OSError as error:
            return {"errno": error.errno, "why": error.strerror}

    def _do(self, task: dict[str, int]) -> dict[str, Any]:
        given_bytes = task["rows"] * task["given_row_bytes"]
        if not self._ggml.ggml_validate_row_data(task["source"], self._start + task["slot"], given_bytes):
            return {"fault": "input"}
        if task["source"] == task["target"]:
            written = memoryview(self._memory)[task["slot"] : task["slot"] + given_bytes]
        else:
            num_bytes = task["rows"] * task["made_row_bytes"]
            address = self._quantized(task, num_bytes)
            if not self._ggml.ggml_validate_row_data(task["target"], address, num_bytes):
                return {"fault": "output"}
            written = memoryview(self._made)[:num_bytes]
        self._write(written, task["offset"])
        return {"crc": zlib.crc32(written)}

    def _quantized(self, task: dict[str, int], num_bytes: int) -> int:
        """The address of the quantized rows."""
        if len(self._made) < num_bytes:
            self._made = bytearray(num_bytes)
        out = ctypes.addressof(ctypes.c_char.from_buffer(self._made))
        importance = None if task["importance"] < 0 else self._start + task["importance"]
        width, step = task["width"], max(1, BLOCK_WEIGHTS // task["width"])
        for start in range(0, task["rows"], step):
            rows = min(step, task["rows"] - start)
            given = self._start + task["slot"] + start * task["given_row_bytes"]
            numbers = self._as_f32(task["source"], given, rows * width)
            made = out + start * task["made_row_bytes"]
            self._ggml.ggml_quantize_chunk(task["target"], numbers, made, 0, rows, width, importance)
        return out

    def _as_f32(self, source: int, address: int, count: int) -> int:
        """The address of ``count`` values as f32."""
        if source == F32:
            return address
        if count > len(self._numbers):
            self._numbers = (ctypes.c_float * count)()
        out = ctypes.addressof(self._numbers)
        convert = self._ggml.ggml_bf16_to_fp32_row if source == BF16 else self._ggml.ggml_fp16_to_fp32_row
        convert(address, out, count)
        return out

    def _write(self, data: memoryview, offset: int) -> None:
        while data:
            written = os.pwrite(self._file, data, offset)
            data, offset = data[written:], offset + written


def library(path: str) -> ctypes.CDLL:
    """ggml's base library."""
    ggml = ctypes.CDLL(path)
    address, whole = ctypes.c_void_p, ctypes.c_int64
    ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, address, address, whole, whole, whole, address]
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_validate_row_data.argtypes = [ctypes.c_int, address, ctypes.c_size_t]
    ggml.ggml_validate_row_data.restype = ctypes.c_bool
    for convert in (ggml.ggml_bf16_to_fp32_row, ggml.ggml_fp16_to_fp32_row):
        convert.argtypes, convert.restype = [address, address, whole], None
    return ggml


def main() -> None:
    """Serve until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    with os.fdopen(os.dup(1), "wb", buffering=0) as answers:
        os.dup2(2, 1)  # whatever native code prints is a complaint, not an answer
        file = os.open(sys.argv[3], os.O_WRONLY)
        worker = Worker(mmap.mmap(int(sys.argv[1]), 0), file, library(sys.argv[2]))
        for line in sys.stdin.buffer:
            answers.write(json.dumps(worker.do(json.loads(line))).encode() + b"\n")


if __name__ == "__main__":
    main()
