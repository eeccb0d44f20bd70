"""Killed at any moment, the store is valid and the next run completes; two processes build a model once."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fakehub
import psutil
import pytest
from fakehub import FakeHub
from faketools import checkpoint
from ingle.convert.files import PARTIAL_SUFFIX, RESUMABLE
from ingle.runtime.store.store import Store

SCRIPT = Path(__file__).parent / "obtaining.py"
NAME = "org/tiny:Q4_K_M"
FEW_KILLS, MANY_KILLS = 3, 20
STAGES = ("download", "quantize")
SOAKS = {
    "download": ("slow", "download", "quantize"),
    "quantize": ("unproven", "quantize", "checksum"),
    "prove": ("real", "quantize", "checksum"),
}
"""The tools, and the names that they give to the stage and to what follows it."""
PATIENCE_S = 300.0
CHILD_S = 5.0
"""A child that only reads (the proof) may finish what it does, unheard; one that writes ends at once."""


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fakehub.running() as hub:
        yield hub


def _computes(child: psutil.Process) -> bool:
    """Not so one that has ended and that nobody has asked about: not every first process of a container does."""
    try:
        return bool(child.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@dataclass
class Home:
    """A store and a cache on disk, and the processes that work in them."""

    hub: FakeHub
    folder: Path
    kind: str = "slow"

    @property
    def store(self) -> Store:
        return Store(self.folder / "ingle")

    @property
    def cache(self) -> Path:
        return self.folder / "hub"

    def start(self, name: str = NAME, *more: str) -> subprocess.Popen[str]:
        environment = os.environ | {
            "INGLE_HOME": str(self.store.home),
            "HF_HUB_CACHE": str(self.cache),
            "HF_ENDPOINT": self.hub.endpoint,
        }
        command = [sys.executable, str(SCRIPT), name, self.kind, *more]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, process: subprocess.Popen[str]) -> list[str]:
        """The stages it printed; fails the test unless it kept a model."""
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, err
        assert out.splitlines()[-1] == f"kept {NAME}"
        return out.splitlines()[:-1]

    def kill_in(self, stage: str, longest_s: float, chance: random.Random) -> None:
        """Kill a run at a random moment after ``stage`` began; it may be over by then."""
        process = self.start()
        assert process.stdout
        for line in process.stdout:
            if line.strip() == stage:
                break
        time.sleep(chance.uniform(0, longest_s))
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGKILL)
        process.communicate()
        _, alive = psutil.wait_procs(children, timeout=CHILD_S)
        computing = [child for child in alive if _computes(child)]
        assert not computing, f"children outlived the run that started them: {computing}"

    def check(self) -> None:
        """What is listed is whole, and what is not whole is called so."""
        for entry in self.store.list():
            self.store.verify(entry.name)
        left = list(self.folder.rglob(f"*{PARTIAL_SUFFIX}"))
        partial = [
            (path.name.split(".")[1], RESUMABLE in path.name) for path in left
        ]  # the other: what a proof computes with
        assert len(partial) == len(set(partial)), f"more than one partial of a file: {left}"

    def check_finished(self) -> None:
        self.check()
        left = [path for path in self.folder.rglob("*") if path.name.endswith((PARTIAL_SUFFIX, ".incomplete"))]
        assert not left
        assert [entry.name for entry in self.store.list()] == [NAME]
        assert len(list(self.store.home.rglob("*.gguf"))) == 1


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_a_few_moments(hub: FakeHub, tmp_path: Path, stage: str) -> None:
    hub.add("org/tiny", checkpoint(400_000))
    hub.fault(where="cdn", bytes_per_s=4_000_000)
    home, chance = Home(hub, tmp_path), random.Random(stage)
    for _ in range(FEW_KILLS):
        home.kill_in(stage, 0.4, chance)
        home.check()
    home.finish(home.start())
    home.check_finished()


def test_two_processes_build_once(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/tiny", checkpoint())
    hub.fault(where="cdn", bytes_per_s=1_000_000)
    home = Home(hub, tmp_path)
    processes = [home.start() for _ in range(3)]
    printed = sorted(home.finish(process) for process in processes)
    assert sum("quantize" in stages for stages in printed) == 1
    assert len(hub.bodies("cdn")) == 1
    home.check_finished()


def test_a_busy_store_is_said_so_and_a_dead_holder_lets_go(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/tiny", checkpoint())
    hub.fault(where="cdn", bytes_per_s=20_000, times=1)
    home = Home(hub, tmp_path)
    holder = home.start()
    assert holder.stdout
    assert holder.stdout.readline() == "download\n"
    second = home.start(NAME, "0.2")
    _, err = second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 1
    assert f"StoreBusy: {NAME} is in use by another process (pid {holder.pid})" in err
    holder.kill()
    holder.communicate()
    home.finish(home.start())
    home.check_finished()


@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupt_leaves_no_debris(hub: FakeHub, tmp_path: Path, stage: str) -> None:
    hub.add("org/tiny", checkpoint())
    hub.fault(where="cdn", bytes_per_s=400_000, times=1)
    home = Home(hub, tmp_path)
    process = home.start()
    assert process.stdout
    for line in process.stdout:
        if line.strip() == stage:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode != 0
    assert not list(tmp_path.rglob(f"*{PARTIAL_SUFFIX}"))
    assert home.store.list() == ()
    home.finish(home.start())
    home.check_finished()


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("stage", SOAKS)
def test_killed_at_many_moments_with_the_real_tools(hub: FakeHub, tmp_path: Path, bard: Path, stage: str) -> None:
    """Each kill is followed by a run that completes. The model is large enough for kills to land inside the stage."""
    hub.add("org/tiny", larger(bard))
    hub.fault(where="cdn", bytes_per_s=200_000_000)
    kind, name, following = SOAKS[stage]
    home, chance = Home(hub, tmp_path, kind), random.Random(stage)
    longest_s = seconds_between(home, name, following)
    for number in range(MANY_KILLS):
        home.store.remove("org/tiny")
        if stage == "download":
            for blob in home.cache.glob("models--*/blobs/*"):
                blob.unlink()
        home.kill_in(name, longest_s, chance)
        home.check()
        stages = home.finish(home.start())
        home.check_finished()
        print(stage, f"kill {number}: done by the next run: {', '.join(stages) or 'nothing, it was over'}")  # noqa: T201  (pytest -s shows it)


def seconds_between(home: Home, stage: str, following: str) -> float:
    """How long after the first sign of a stage that of another comes."""
    process, times = home.start(), {}
    assert process.stdout
    for line in process.stdout:
        times[line.strip()] = time.monotonic()
    process.communicate()
    return times[following] - times[stage]


def larger(bard: Path, hidden: int = 512, layers: int = 8) -> dict[str, bytes]:
    """The example checkpoint with larger random weights: about 33 million."""
    import numpy as np
    from ingle.convert.checkpoint import read_tensors

    files = {path.name: path.read_bytes() for path in bard.iterdir()}
    config = json.loads(files["config.json"])
    scale = hidden // config["hidden_size"]
    shapes = {}
    for name, tensor in read_tensors(bard).items():
        vocabulary = config["vocab_size"]
        shape = [size if size == vocabulary else size * scale for size in tensor.shape]
        if ".layers.0." in name:
            shapes |= {name.replace(".0.", f".{layer}."): shape for layer in range(layers)}
        elif ".layers." not in name:
            shapes[name] = shape
    for key in ("hidden_size", "intermediate_size", "head_dim"):
        config[key] *= scale
    config["num_hidden_layers"] = layers
    header, offset = {}, 0
    for name, shape in shapes.items():
        end = offset + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    numbers = np.random.default_rng(0).standard_normal(offset // 2, np.float32) * 0.02
    text = json.dumps(header).encode()
    weights = len(text).to_bytes(8, "little") + text + (numbers.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return files | {"config.json": json.dumps(config).encode(), "model.safetensors": weights}
