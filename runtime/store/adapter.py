"""A PEFT adapter and its base, wherever they are: on this machine, or first to be fetched from the hub."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ...convert import peft
from ...convert.errors import BadCheckpoint, BadName, HubError, InputError, ModelNotFound
from ...convert.progress import Progress, silent
from .arrival import checkpoint_at
from .checkpoint import meant
from .download import Library
from .names import FileName, HubName, ModelName, parse
from .preview import checkpoint_preview
from .selection import adapter_files, is_adapter
from .store import Store


def adapter_folder(text: str, progress: Progress = silent, library: Library | None = None) -> Path | None:
    """The adapter folder that ``text`` names, fetched first if it is the hub's; None where it names a whole model.

    Raises:
        BadName: it names neither. HubError, ChecksumMismatch, DiskFull: the download failed.
    """
    name = meant(text)
    if isinstance(name, Path):
        return name if peft.is_adapter(name) and not (name / "config.json").exists() else None
    library = library or Library.from_environment()
    repository = library.repository(name)
    if not is_adapter(repository):
        return None
    library.download(repository, adapter_files(repository), progress)
    library.cache.remember(repository, name.revision)
    return library.cache.snapshot(repository)


@contextlib.contextmanager
def base_of(
    folder: Path, asked: str | None, progress: Progress = silent, library: Library | None = None
) -> Iterator[Path]:
    """The base of the adapter in ``folder``: a checkpoint folder, an outline of one of the hub's, or a GGUF file.

    ``asked`` names it; without, adapter_config.json does. Of the hub's no weights are fetched unless the adapter brings
    copies of some, which must be compared.

    Raises:
        InputError: nobody names it. BadName, ModelNotFound, BadCheckpoint, HubError: it cannot be had.
    """
    text = asked or str(peft.read_config(folder).get("base_model_name_or_path") or "")
    if not text:
        raise InputError(f"{folder} does not say which model it was trained on", hint="name it with --base")
    if Path(text).is_dir():
        yield Path(text)
        return
    name = _named(text, folder, asked)
    if isinstance(name, FileName) or (isinstance(name, HubName) and name.type):
        yield Store().find(text).path
        return
    if peft.read(folder).copies:
        with checkpoint_at(text, progress, library) as checkpoint:
            yield checkpoint.complete()
        return
    with contextlib.ExitStack() as stack:
        try:
            place = stack.enter_context(checkpoint_preview(text, progress, library))
        except (HubError, BadCheckpoint) as error:
            place = _kept(text, error)
        yield place


def _named(text: str, folder: Path, asked: str | None) -> ModelName:
    try:
        return parse(text)
    except BadName as error:
        if asked:
            raise
        raise BadName(
            f"{folder} was trained on {text!r}, which is no model that can be found by that name",
            hint="name its base with --base: a checkpoint folder, a hub id, or a GGUF file",
        ) from error


def _kept(text: str, error: Exception) -> Path:
    """The model of that name that is here already, where the hub cannot show its checkpoint."""
    try:
        return Store().find(text).path
    except ModelNotFound:
        raise error from None
