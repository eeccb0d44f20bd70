"""JSON files of a checkpoint: untrusted, so read with limits."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from .errors import BadCheckpoint

MAX_CONFIG_BYTES = 10 << 20
MAX_DEPTH = 64


def read_object(path: Path, most_bytes: int = MAX_CONFIG_BYTES, most_values: int | None = None) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        BadCheckpoint: no regular file, larger than ``most_bytes``, with more than ``most_values`` values, not UTF-8
            JSON, not an object, nested deeper than ``MAX_DEPTH``, or with a number that is not finite.
    """
    data = read_bytes(path, most_bytes)
    if most_values is not None and (values := count_values(data)) > most_values:
        raise BadCheckpoint(f"{path} has {values:,} values, and at most {most_values:,} are allowed")
    return parse_object(data, path)


def count_values(data: bytes) -> int:
    """The most values that a JSON text can have: parsed, even the smallest takes twenty times its bytes."""
    return sum(data.count(mark) for mark in (b",", b"[", b"{"))


def read_array(path: Path, most_bytes: int = MAX_CONFIG_BYTES) -> list[Any]:
    """The array in a JSON file, within the limits of :func:`read_object`."""
    value = _parse(read_bytes(path, most_bytes), path)
    if not isinstance(value, list):
        raise BadCheckpoint(f"{path} holds a JSON {type(value).__name__}, not an array")
    return value


def read_bytes(path: Path, most_bytes: int) -> bytes:
    """The bytes of a regular file of at most ``most_bytes``; a FIFO or device is refused without waiting for it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"cannot open {path}: {getattr(error, 'strerror', None) or error}") from error
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise BadCheckpoint(f"{path} is not a regular file")
        if status.st_size > most_bytes:
            raise BadCheckpoint(f"{path} has {status.st_size:,} bytes, and at most {most_bytes:,} are allowed")
        return file.read(most_bytes)


def parse_object(data: bytes, path: Path) -> dict[str, Any]:
    """Parse the bytes of ``path`` as a JSON object, within the limits."""
    value = _parse(data, path)
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{path} holds a JSON {type(value).__name__}, not an object")
    return value


def _parse(data: bytes, path: Path) -> Any:
    try:
        value = json.loads(data, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint(f"{path} is not valid JSON: {error}", hint="download the file again") from error
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [child for container in level for child in _children(container) if isinstance(child, dict | list)]
    if level:
        raise BadCheckpoint(f"{path} is nested deeper than {MAX_DEPTH} levels")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is a number that is not finite")
    return number


def _children(container: Any) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container
