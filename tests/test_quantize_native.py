"""The quantizer against llama.cpp's own call: bytes, sizes, refusals, and what is left behind when it ends early."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ingle.convert import gguf
from ingle.convert.errors import (
    BadGGUF,
    DiskFull,
    EngineCrashed,
    InputError,
    UnknownType,
)
from ingle.convert.ggml import TYPES as TENSOR_TYPES
from ingle.quantize import TYPES, execute, native, plan, quantize
from ingle.quantize.plan import planned_types
from ingle.quantize.types import find

Shapes = dict[str, tuple[int, ...]]


def llama_shapes(layers: int, width: int, ff: int, kv_width: int, vocabulary: int) -> Shapes:
    shapes: Shapes = {
        "token_embd.weight": (vocabulary, width),
        "output_norm.weight": (width,),
        "output.weight": (vocabulary, width),
    }
    for layer in range(layers):
        block: Shapes = {
            "attn_norm": (width,),
            "attn_q": (width, width),
            "attn_k": (kv_width, width),
            "attn_v": (kv_width, width),
            "attn_output": (width, width),
            "ffn_norm": (width,),
            "ffn_gate": (ff, width),
            "ffn_up": (ff, width),
            "ffn_down": (width, ff),
        }
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in block.items()}
    return shapes


def llama_metadata(layers: int, width: int, ff: int, heads: int, kv_heads: int) -> dict[str, gguf.Value]:
    return {
        "general.architecture": "llama",
        "general.file_type": 1,
        "ingle.source": "random numbers",
        "ingle.list": ["one", "two"],
        "llama.block_count": layers,
        "llama.context_length": 64,
        "llama.embedding_length": width,
        "llama.feed_forward_length": ff,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": width // heads,
        "tokenizer.ggml.model": "no_vocab",
    }


def write_llama(path: Path, width: int = 256, ff: int = 256, dtype: str = "F16", **extra: gguf.Value) -> Path:
    """A random Llama-shaped GGUF without a vocabulary, which is all that the quantizer reads."""
    shapes = llama_shapes(layers=8, width=width, ff=ff, kv_width=width // 4, vocabulary=64)
    metadata = llama_metadata(layers=8, width=width, ff=ff, heads=4, kv_heads=1) | extra
    random = np.random.default_rng(0)
    gguf.write(path, metadata, [tensor_plan(random, name, shape, dtype) for name, shape in shapes.items()])
    return path


def tensor_plan(random: np.random.Generator, name: str, shape: tuple[int, ...], dtype: str) -> gguf.TensorPlan:
    element = np.float32 if len(shape) == 1 or dtype == "F32" else np.float16
    values = random.standard_normal(shape).astype(element)
    kind = TENSOR_TYPES["F32" if element is np.float32 else "F16"]
    return gguf.TensorPlan(name, shape, kind, lambda: [values])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("quantize") / "tiny-F16.gguf")


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of 96 values: they divide into blocks of 32, not of 256."""
    return write_llama(tmp_path_factory.mktemp("quantize") / "narrow-F16.gguf", width=96, ff=160)


def native_quantize(source: Path, out: Path, native_id: int, *, dry_run: bool = False) -> tuple[int, str]:
    """llama.cpp's own quantizer, called directly on one thread: its return code and its log."""
    import llama_cpp

    log: list[str] = []
    listener = llama_cpp.llama_log_callback(lambda _level, text, _: log.append(text.decode()))
    llama_cpp.llama_log_set(listener, ctypes.c_void_p())
    try:
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype, params.nthread, params.dry_run = native_id, 1, dry_run
        code = llama_cpp.llama_model_quantize(bytes(source), bytes(out), ctypes.byref(params))
        return int(code), "".join(log)
    finally:
        llama_cpp.llama_log_set(llama_cpp.llama_log_callback(), ctypes.c_void_p())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


USABLE = [kind.name for kind in TYPES.values() if not kind.needs_imatrix]


@pytest.mark.parametrize("name", USABLE)
def test_same_bytes_as_llama_cpp_and_size_known_before(source: Path, tmp_path: Path, name: str) -> None:
    assert native_quantize(source, tmp_path / "theirs.gguf", TYPES[name].native_id)[0] == 0
    planned = plan(source, name)
    done = execute(planned, tmp_path / "ours.gguf", threads=2)
    assert (tmp_path / "ours.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()
    assert planned.size_bytes == done.size_bytes == (tmp_path / "ours.gguf").stat().st_size
    assert done.fallbacks == ()


@pytest.mark.parametrize("name", ["Q4_K_M", "Q2_K", "IQ4_XS", "Q4_0", "TQ2_0"])
def test_narrow_rows_fall_back_and_say_so(narrow: Path, tmp_path: Path, name: str) -> None:
    done = quantize(narrow, tmp_path / "out.gguf", name)
    written = gguf.read(done.path)
    assert done.size_bytes == written.size_bytes
    if TYPES[name].tensor_type.block == 32:
        assert done.fallbacks == ()
        return
    assert {fallback.tensor for fallback in done.fallbacks} == {
        info.name for info in written.tensors.values() if len(info.shape) > 1
    }
    assert all(fallback.given == written.tensors[fallback.tensor].type.name for fallback in done.fallbacks)
    assert {fallback.width for fallback in done.fallbacks} == {96, 160}


@pytest.mark.parametrize("name", sorted(TYPES.keys() - set(USABLE)))
def test_llama_cpp_itself_refuses_these_without_an_imatrix(source: Path, tmp_path: Path, name: str) -> None:
    code, log = native_quantize(source, tmp_path / "x", TYPES[name].native_id)
    assert code != 0
    assert "requires an importance matrix" in log


def test_the_table_covers_every_type_that_llama_cpp_accepts(source: Path, tmp_path: Path) -> None:
    known = {kind.native_id for kind in TYPES.values()}
    others = [number for number in range(64) if number not in known]
    assert all(native_quantize(source, tmp_path / "x", number, dry_run=True)[0] != 0 for number in others)


def test_the_bits_of_a_whole_8b_model_are_as_the_table_says(tmp_path: Path) -> None:
    sparse = tmp_path / "8b.gguf"
    shapes = llama_shapes(layers=32, width=4096, ff=14336, kv_width=1024, vocabulary=128_256)
    plans = [
        gguf.TensorPlan(name, shape, TENSOR_TYPES["F32" if len(shape) == 1 else "F16"], tuple)
        for name, shape in shapes.items()
    ]
    head = gguf.header(llama_metadata(layers=32, width=4096, ff=14336, heads=32, kv_heads=8), plans)
    with sparse.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + sum(plan.nbytes for plan in plans))
    weights = sum(math.prod(shape) for shape in shapes.values())
    for kind in TYPES.values():
        types = planned_types(native_quantize(sparse, tmp_path / "x", kind.native_id, dry_run=True)[1])
        num_bytes = sum(types[name].nbytes(shape) for name, shape in shapes.items())
        assert round(8 * num_bytes / weights, 2) == kind.bits_8b, kind.name


def test_the_bits_of_each_type_are_those_of_ggml(source: Path) -> None:
    import llama_cpp

    library = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"))
    library.ggml_type_size.restype = ctypes.c_size_t
    library.ggml_blck_size.restype = ctypes.c_int64
    for kind in TYPES.values():
        element = kind.tensor_type.id
        assert kind.bits == 8 * library.ggml_type_size(element) / library.ggml_blck_size(element)


def test_metadata_is_kept(source: Path, tmp_path: Path) -> None:
    quantize(source, tmp_path / "out.gguf", "Q4_K_M")
    before, after = dict(gguf.read(source).metadata), dict(gguf.read(tmp_path / "out.gguf").metadata)
    assert after.pop("general.quantization_version") == 2
    assert after.pop("general.file_type") == TYPES["Q4_K_M"].native_id
    before.pop("general.file_type")
    assert before == after
    assert after["ingle.source"] == "random numbers"
    assert after["ingle.list"] == ["one", "two"]


def test_names_are_found_in_any_case_and_by_alias() -> None:
    assert find("q4_k_m") is find("Q4-K") is TYPES["Q4_K_M"]


def test_an_unknown_type_names_the_nearest() -> None:
    with pytest.raises(UnknownType, match="Q4_K_X") as caught:
        find("Q4_K_X")
    assert "Q4_K_M" in caught.value.hint or "Q4_K_S" in caught.value.hint


def test_a_type_that_needs_an_imatrix_is_refused_before_the_source_is_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="importance matrix") as caught:
        quantize(tmp_path / "nothing here", tmp_path / "out", "IQ2_XS")
    assert "Q2_K" in caught.value.hint


def test_a_quantized_source_is_refused_unless_asked_for(source: Path, tmp_path: Path) -> None:
    first = quantize(source, tmp_path / "q8.gguf", "Q8_0").path
    with pytest.raises(InputError, match="already quantized") as caught:
        quantize(first, tmp_path / "q4.gguf", "Q4_0")
    assert "--requantize" in caught.value.hint
    assert not (tmp_path / "q4.gguf").exists()
    again = quantize(first, tmp_path / "q4.gguf", "Q4_0", requantize=True)
    assert gguf.read(again.path).tensors["blk.0.attn_q.weight"].type.name == "Q4_0"


@pytest.mark.parametrize("way", ["same path", "dotted path", "symlink", "hard link", "folder"])
def test_the_source_is_never_the_target(source: Path, tmp_path: Path, way: str) -> None:
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(source.read_bytes())
    out = tmp_path / "out.gguf"
    if way == "same path":
        out = mine
    elif way == "dotted path":
        out = tmp_path / "sub" / ".." / "mine.gguf"
        (tmp_path / "sub").mkdir()
    elif way == "symlink":
        out.symlink_to(mine)
    elif way == "hard link":
        out.hardlink_to(mine)
    else:
        out.mkdir()
    before = names(tmp_path)
    with pytest.raises(InputError):
        quantize(mine, out, "Q4_0")
    assert mine.read_bytes() == source.read_bytes()
    assert names(tmp_path) == before


def test_a_part_of_a_model_is_refused(tmp_path: Path) -> None:
    part = write_llama(tmp_path / "part.gguf", **{"split.count": np.uint16(2), "split.no": np.uint16(0)})
    with pytest.raises(InputError, match="one part of a model in 2 files"):
        plan(part, "Q4_0")


def test_another_alignment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="aligned to 64 bytes"):
        plan(write_llama(tmp_path / "wide.gguf", **{"general.alignment": 64}), "Q4_0")


def test_an_architecture_unknown_to_llama_cpp_is_an_error_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(BadGGUF, match="unknown model architecture: 'nonsense'"):
        plan(write_llama(tmp_path / "odd.gguf", **{"general.architecture": "nonsense"}), "Q4_0")


def test_a_broken_source_is_refused_before_llama_cpp_sees_it(source: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(source.read_bytes()[:-1000])
    with pytest.raises(BadGGUF, match="broken"):
        quantize(broken, tmp_path / "out.gguf", "Q4_0")
    assert names(tmp_path) == ["broken.gguf"]


def test_weights_that_are_not_numbers_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    bad = write_llama(tmp_path / "nan.gguf", dtype="F32")
    info = gguf.read(bad).tensors["blk.3.ffn_up.weight"]
    with bad.open("r+b") as file:
        file.seek(info.offset)
        file.write(np.full(64, np.nan, np.float32).tobytes())
    with pytest.raises(BadGGUF, match="refused to quantize"):
        quantize(bad, tmp_path / "out.gguf", "Q8_0")
    assert names(tmp_path) == ["nan.gguf"]


def test_a_native_abort_is_an_error_with_the_signal(tmp_path: Path) -> None:
    job = native.Job(str(tmp_path / "x"), "", 2)
    with pytest.raises(EngineCrashed, match="SIGKILL"):
        native.run(job, lambda: os.kill(_child_of(os.getpid()), signal.SIGKILL))


def _child_of(parent: int) -> int:
    (child,) = map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    return child


@pytest.mark.parametrize("threads", [0, -1, 513])
def test_a_senseless_number_of_threads_is_refused(source: Path, tmp_path: Path, threads: int) -> None:
    with pytest.raises(InputError, match="1 to 512"):
        quantize(source, tmp_path / "out.gguf", "Q8_0", threads=threads)


def test_progress_ends_at_the_size(source: Path, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    done = quantize(source, tmp_path / "out.gguf", "Q4_K_M", progress=lambda *call: calls.append(call))
    assert calls[-1] == ("quantize", done.size_bytes, done.size_bytes)
    counts = [count for _, count, _ in calls]
    assert counts == sorted(counts)


def test_nothing_is_printed(source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    quantize(source, tmp_path / "out.gguf", "Q4_K_M")
    assert capfd.readouterr() == ("", "")


def test_a_disk_without_space_is_refused_before_work(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(DiskFull, match="1,000 free"):
        quantize(source, tmp_path / "out.gguf", "Q4_K_M")
    assert names(tmp_path) == []


PROGRAM = (
    "import sys; from pathlib import Path; from ingle.quantize import quantize; from ingle.convert.errors import *\n"
)


def python(program: str, *arguments: str | Path, **settings: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", PROGRAM + program, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, text=True, stdout=-1, stderr=-1, **settings)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9, 0.9999])
def test_a_disk_that_fills_up_is_an_error_and_leaves_nothing(source: Path, tmp_path: Path, share: float) -> None:
    limit = max(int(plan(source, "Q8_0").size_bytes * share), 1 << 16)  # the child's answer needs a little too
    program = """
try: quantize(Path(sys.argv[1]), Path(sys.argv[2]), "Q8_0")
except DiskFull as error: print("DiskFull", error)
"""
    limited = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))}
    process = python(program, source, tmp_path / "out.gguf", **limited)
    out, complaints = process.communicate(timeout=60)
    assert out.startswith("DiskFull no space left"), complaints
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.1])
def test_an_end_by_signal_leaves_no_file_and_no_process(tmp_path: Path, number: signal.Signals, delay_s: float) -> None:
    large = write_llama(tmp_path / "large.gguf", width=1024, ff=2048)
    program = """
def report(stage, done, total): print(done, flush=True)
quantize(Path(sys.argv[1]), Path(sys.argv[2]), "IQ4_XS", threads=1, progress=report)
"""
    folder = tmp_path / "out"
    process = python(program, large, folder / "out.gguf")
    assert process.stdout is not None and process.stdout.readline()
    time.sleep(delay_s)
    child = _child_of(process.pid)
    process.send_signal(number)
    started = time.monotonic()
    process.communicate(timeout=10)
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < started + 5 and _runs(child):
            time.sleep(0.01)
    assert not _runs(child)
    assert time.monotonic() - started < 3
    left = names(folder)
    assert "out.gguf" not in left
    assert len(left) == (1 if number == signal.SIGKILL else 0)
    assert quantize(large, folder / "out.gguf", "Q8_0").size_bytes > 0


def _runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_log_in_other_words_plans_nothing() -> None:
    assert planned_types("tensor 1 of 2: blk.0.attn_q.weight becomes q4_K\n") == {}
