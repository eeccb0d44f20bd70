"""Runs in a child process: read each hostile file, within limits, while an audit hook watches for anything that runs.

``python guarded.py ACT FOLDER WARM``: ``ACT`` names what is done to each entry of ``FOLDER``, after it was done once
to ``WARM``, which is sound. Prints one JSON object, entry -> what came of it; the first forbidden event ends the
process with code 86, too much CPU time by SIGPROF, too much memory by an error.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ingle.convert import convert, safetensors, torchbin
from ingle.convert.errors import IngleError

RAN = 86
MOST_CPU_S = 2.0
MOST_BYTES = 256 << 20
FORBIDDEN = (
    "exec", "compile", "import", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.startfile",
    "subprocess.Popen", "pty.spawn", "socket.", "ctypes.", "pickle.find_class", "marshal.", "code.__new__",
    "urllib.Request", "webbrowser.open", "http.client.connect", "shutil.",
)  # fmt: skip
ACTS: dict[str, Callable[[Path], Any]] = {
    "pickle": torchbin.read,
    "safetensors": safetensors.read,
    "convert": lambda folder: convert(folder, folder.parent.parent / "out" / f"{folder.name}.gguf"),
    # What the hook is for: these must be caught.
    "unpickle": lambda path: pickle.loads(path.read_bytes()),
    "allocate": lambda path: bytes(path.stat().st_size + MOST_BYTES),
    "spin": lambda path: any(iter(int, 1)),
}


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    forbidden = any(event == name or (name.endswith(".") and event.startswith(name)) for name in FORBIDDEN)
    if forbidden or (event == "open" and str(arguments[0]).endswith((".py", ".pyc", "CANARY"))):
        os.write(2, f"forbidden: {event} {arguments!r}\n".encode()[:500])
        os._exit(RAN)


def status_bytes(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) << 10


def outcome(act: Callable[[Path], Any], path: Path) -> str:
    signal.setitimer(signal.ITIMER_PROF, MOST_CPU_S)
    try:
        act(path)
    except IngleError as error:
        return f"{type(error).__name__}: {error.message}"
    except MemoryError:
        return "MemoryError"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "done"


def main() -> None:
    act, folder, warm = ACTS[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3])
    assert warm.name == "none" or outcome(act, warm) == "done"
    most = status_bytes("VmSize") + MOST_BYTES - status_bytes("VmRSS")
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    paths = sorted(folder.iterdir())
    os.chdir(folder)
    sys.path.insert(0, "")
    sys.addaudithook(watch)
    outcomes = {}
    for path in paths:
        if path.is_dir():
            os.chdir(path)
        outcomes[path.name] = outcome(act, path)
    sys.stdout.write(json.dumps({"outcomes": outcomes, "peak_bytes": status_bytes("VmHWM")}))


if __name__ == "__main__":
    main()
