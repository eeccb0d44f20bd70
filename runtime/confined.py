"""Work done in a child process of our own, because a wrong file can end the process that loads it.

The child writes one JSON object per line: progress, then what it found or an error of ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from ..convert import child, errors
from ..convert.errors import IngleError, VerificationFailed
from ..convert.progress import Progress, silent

MOST_SECONDS = 900
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}


def run(
    function: str, file: Path, *arguments: str, progress: Progress = silent, most_s: float = MOST_SECONDS
) -> dict[str, Any]:
    """What ``function`` (``package.module:name``, which calls :func:`report`) found about ``file``.

    Raises:
        VerificationFailed: the child died of it, or took longer than ``most_s``. Any error of ours that it reported.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            child.command(function, str(file), *arguments, watched=True),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=child.environment(**OFFLINE),
        )
        timer = threading.Timer(most_s, process.kill)
        timer.daemon = True  # of a proof beside other work, which may be interrupted: the process is not to wait for it
        timer.start()
        try:
            found = _follow(process, progress)
        finally:
            timer.cancel()
            process.kill()
            process.communicate()
        if found is None:
            raise _death(process.returncode, file, log)
        return found


def report(work: Callable[[Progress], Mapping[str, Any]]) -> None:
    """In the child: do ``work`` and tell the parent what came of it."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)  # whatever else writes to stdout must not end up between our lines

        def say(**event: Any) -> None:
            print(json.dumps(event), file=out, flush=True)

        try:
            found = work(lambda *step: say(progress=step))
        except IngleError as error:
            say(error=type(error).__name__, message=error.message, hint=error.hint)
        else:
            say(found=found)


def _follow(process: subprocess.Popen[bytes], progress: Progress) -> dict[str, Any] | None:
    """Read the child's lines to the end; None when it died without having found anything."""
    found: dict[str, Any] | None = None
    for line in process.stdout or ():
        event = json.loads(line)
        if "progress" in event:
            progress(*event["progress"])
        elif "found" in event:
            found = event["found"]
        else:
            raise getattr(errors, event["error"])(event["message"], hint=event["hint"])
    process.wait()
    return found


def _death(status: int, file: Path, log: IO[bytes]) -> VerificationFailed:
    log.seek(0)
    lines = log.read().decode("utf-8", "replace").strip().splitlines()
    return VerificationFailed(
        f"the proof of {file} {child.manner_of_death(status)}: {' '.join(lines[-3:]) or 'it left no message'}",
        hint="llama.cpp cannot load this file safely; please report the checkpoint",
    )
