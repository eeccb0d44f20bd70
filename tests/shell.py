"""The command line as a program of its own, the way a shell starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = "from ingle.runtime.cli.main import main; main()"


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "NO_COLOR": "1", **extra}


def ingle(*arguments: str | Path, extra: dict[str, str] | None = None, **settings: Any) -> subprocess.Popen[str]:
    """Start ``ingle`` with pipes for its output; stdin is empty unless given."""
    settings = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.Popen(command, env=environment(**(extra or {})), text=True, **settings)


def finished(*arguments: str | Path, **settings: Any) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a whole run."""
    text = settings.pop("text_in", None)
    if text is not None:
        settings["stdin"] = subprocess.PIPE
    with ingle(*arguments, **settings) as process:
        out, complaints = process.communicate(text, timeout=120)
    return process.returncode, out, complaints
