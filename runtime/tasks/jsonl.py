"""A task over a file: one input a line, one result a line, begun again where it was interrupted."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from ...convert.errors import BadRequest, StorageError
from ...convert.progress import Progress, silent

CHUNK_LINES = 1024
PART = ".part"


def run(
    source: Path,
    out: Path,
    work: Callable[[Sequence[Any]], Sequence[dict[str, Any]]],
    progress: Progress = silent,
) -> int:
    """Write ``work``'s result for each line of ``source`` to ``out``; returns how many were there from an earlier run.

    A line of ``source`` is a JSON value; a line of ``out`` is the result with ``index``, from 0, and ``input``, the
    beginning of the input line's SHA-256. Results are kept in ``out`` + ``.part`` until all are there; a later run goes
    on behind them.

    Raises:
        BadRequest: ``out`` exists, ``source`` is no file, a line is not JSON, or the results kept are of another file.
        StorageError: a file cannot be read or written.
    """
    if out.exists():
        raise BadRequest(f"{out} exists already", hint="name another file, or remove it")
    if not source.is_file():
        raise BadRequest(f"{source} is not a file", hint="name a .jsonl file: one input a line")
    try:
        total = sum(1 for _ in _lines(source))
        part = out.with_name(out.name + PART)
        done = _kept(source, part)
        with part.open("a", encoding="utf-8") as results:
            for begin, lines in _chunks(source, done):
                found = work([_parsed(source, begin + index, line) for index, line in enumerate(lines)])
                _write(results, begin, lines, found)
                progress("task", begin + len(lines), total)
        part.replace(out)
    except OSError as error:
        raise StorageError(f"{error.filename or source}: {error.strerror}") from error
    return done


def _kept(source: Path, part: Path) -> int:
    """How many results an earlier run has left; one that it wrote by half is removed."""
    if not part.exists():
        return 0
    data = part.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(part, len(whole))
    inputs = itertools.chain(_lines(source), itertools.repeat(""))
    kept = whole.splitlines()
    for index, (line, given) in enumerate(zip(kept, inputs, strict=False)):
        found = json.loads(line)
        if found.get("index") != index or found.get("input") != _digest(given):
            raise BadRequest(f"line {index + 1} of {part} is not of line {index + 1} of {source}",
                             hint=f"remove {part} to begin anew")  # fmt: skip
    return len(kept)


def _chunks(source: Path, skipped: int) -> Iterator[tuple[int, list[str]]]:
    lines = itertools.islice(_lines(source), skipped, None)
    begin = skipped
    while chunk := list(itertools.islice(lines, CHUNK_LINES)):
        yield begin, chunk
        begin += len(chunk)


def _lines(source: Path) -> Iterator[str]:
    """The lines that are not empty."""
    try:
        with source.open(encoding="utf-8") as file:
            yield from (line.strip() for line in file if line.strip())
    except UnicodeDecodeError as error:
        raise BadRequest(f"{source} is not UTF-8: {error.reason}") from error


def _parsed(source: Path, index: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise BadRequest(f"input {index} of {source} is not JSON: {line[:60]!r}") from error


def _write(results: IO[str], begin: int, lines: Sequence[str], found: Sequence[dict[str, Any]]) -> None:
    for index, (line, result) in enumerate(zip(lines, found, strict=True), begin):
        row = {"index": index, "input": _digest(line), **result}
        results.write(json.dumps(row, ensure_ascii=False) + "\n")
    results.flush()
    os.fsync(results.fileno())


def _digest(line: str) -> str:
    return hashlib.sha256(line.encode()).hexdigest()[:16]
