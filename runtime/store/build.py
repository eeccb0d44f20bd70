"""Obtain a model: find it, or pull -> convert -> verify -> quantize -> keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...convert.errors import HubError, InputError, ModelNotFound
from ...convert.files import require_space
from ...convert.progress import Progress, silent
from ..options import LoadOptions
from . import places
from .arrival import on_its_way
from .checkpoint import Checkpoint, begin
from .download import Library
from .fingerprint import fingerprint
from .manifest import Entry, KeptFile, Source
from .names import FileName, FolderName, HubName, ModelName, parse
from .repository import SHA256, RemoteFile, Repository
from .selection import (
    Variant,
    choose,
    default_type,
    is_checkpoint,
    matching,
    projector,
    variants,
)
from .stages import PLAIN_TYPES, Importance, Job, Tools, Workshop, now, version
from .store import Store, sha256

HEADER_ALLOWANCE_BYTES = 64 << 20
BYTES_PER_WEIGHT = 2


def obtain(
    name: str,
    store: Store,
    *,
    progress: Progress = silent,
    update: bool = False,
    importance: Importance | None = None,
    library: Library | None = None,
    tools: Tools | None = None,
) -> Entry:
    """The model of that name, built first if it is not here. ``update`` asks the hub whether it has a newer one, unless
    HF_HUB_OFFLINE forbids it. With ``importance``, one that was built without it is built again.

    What is here already is found without opening a connection (unless ``update``). Two processes that ask for the
    same model build it once.

    Raises:
        BadName, UnknownType, BadCheckpoint, UnsupportedModel: it cannot be had as asked. HubError, ChecksumMismatch:
        the hub's side. VerificationFailed: the conversion differs. DiskFull, StoreBusy.
    """
    wanted = parse(name)
    if isinstance(wanted, FileName):
        if importance:
            raise InputError(f"{name} is a file", hint=f"ingle quantize {name} -t TYPE --imatrix FILE")
        return store.find(name)
    update = update and not places.is_offline()
    if not update and (entry := _here(store, wanted, importance)):
        return entry
    with store.locked(wanted, progress=progress):
        if not update and (entry := _here(store, wanted, importance)):
            return entry
        store.sweep(wanted, resumable=False)
        workshop = Workshop(store, tools or Tools(), progress)
        if isinstance(wanted, FolderName):
            return _from_folder(wanted, workshop, importance)
        return _from_hub(wanted, workshop, library or Library.from_environment(), importance)


def with_draft(options: LoadOptions, store: Store, progress: Progress = silent) -> LoadOptions:
    """``options`` whose draft model, which has a name, is the path of its file; built first if it is not here."""
    if options.draft is None:
        return options
    return replace(options, draft=str(obtain(options.draft, store, progress=progress).path))


def _here(store: Store, name: ModelName, importance: Importance | None) -> Entry | None:
    """The model, if it is here and was made with what was asked for."""
    from ...convert import gguf

    try:
        entry = store.find(str(name))
    except ModelNotFound:
        return None
    return entry if importance is None or importance.made(gguf.read(entry.path).metadata) else None


def _from_folder(name: FolderName, workshop: Workshop, importance: Importance | None) -> Entry:
    from ...convert.checkpoint import read_tensors

    if not name.path.is_dir():
        raise ModelNotFound(f"there is no folder {name.path}", hint="check the path")
    version = fingerprint(name.path)
    type_name, reason = _type(name, name.path, importance)
    if entry := _here(workshop.store, name.typed(type_name), importance):
        return entry
    source = Source("folder", str(name.path), version)
    job = Job(name, Checkpoint.of_folder(name.path), source, type_name, reason, importance)
    size_bytes = sum(tensor.nbytes for tensor in read_tensors(name.path).values())
    _require_space(workshop, type_name, size_bytes, download=(workshop.store.home, 0))
    return workshop.build(job)


def _from_hub(name: HubName, workshop: Workshop, library: Library, importance: Importance | None) -> Entry:
    repository = _repository(name, library)
    found = variants(repository)
    if found and importance and not is_checkpoint(repository):
        raise InputError(
            f"{name} holds GGUF files, which are used as they are: an importance matrix would change nothing",
            hint="leave --imatrix out",
            param="imatrix",
        )
    if found and not importance and (name.type is None or matching(found, name.type) or not is_checkpoint(repository)):
        return _in_place(name, repository, found, workshop, library)
    return _built(name, repository, workshop, library, importance)


def _repository(name: HubName, library: Library) -> Repository:
    try:
        return library.repository(name)
    except HubError as error:
        if Path(name.repository).is_dir():
            hint = f"if you mean the folder {name.repository}, write ./{name.repository}; else {error.hint}"
            raise HubError(error.message, hint=hint) from error
        raise


def _in_place(
    name: HubName, repository: Repository, found: Sequence[Variant], workshop: Workshop, library: Library
) -> Entry:
    """Use a GGUF of the repository where the Hugging Face cache has it."""
    variant, reason = choose(found, name.type, repository.id)
    side = projector(repository)
    wanted = variant.files if side is None else (*variant.files, side)
    paths = library.download(repository, wanted, workshop.progress)
    library.cache.remember(repository, name.revision)
    label = name.type or variant.label or type_of_file(paths[0])
    kept = [_kept(path, file, workshop) for path, file in zip(paths, wanted, strict=True)]
    files, vision = tuple(kept[: len(variant.files)]), (kept[-1] if side else None)
    source = Source("hub", repository.id, repository.commit)
    entry = Entry(
        str(name.typed(label)),
        label,
        files,
        source,
        reason=reason,
        ingle=version(),
        created=now(),
        projector=vision,
    )
    return workshop.store.keep(name, entry)


def _kept(path: Path, file: RemoteFile, workshop: Workshop) -> KeptFile:
    checksum = file.etag if SHA256.fullmatch(file.etag) else sha256(path, workshop.progress)
    return KeptFile(path, file.size_bytes, checksum)


def _built(
    name: HubName, repository: Repository, workshop: Workshop, library: Library, importance: Importance | None
) -> Entry:
    """Build a checkpoint of the hub while it arrives; one that is here in that type and version is not fetched."""
    if name.type:
        _require_buildable(name.type, importance)
    begun = begin(library, repository, workshop.progress)
    workshop.tools.inspect(begun.folder)
    source = Source("hub", repository.id, repository.commit)
    estimate, _ = default_type(begun.weights_bytes // BYTES_PER_WEIGHT)
    download = (library.cache.root, library.missing_bytes(repository, begun.weights))
    _require_space(workshop, name.type or estimate, begun.weights_bytes, download)
    with on_its_way(library, begun, name.revision, workshop.progress) as checkpoint:
        type_name, reason = _type(name, checkpoint.folder, importance)
        entry = _here(workshop.store, name.typed(type_name), importance)
        if entry and entry.source.version == repository.commit:
            return entry
        return workshop.build(Job(name, checkpoint, source, type_name, reason, importance))


def _type(name: HubName | FolderName, checkpoint: Path, importance: Importance | None) -> tuple[str, str]:
    """The type to build, and why."""
    from ...convert.checkpoint import read_tensors

    if name.type:
        return _require_buildable(name.type, importance), "asked for"
    return default_type(sum(math.prod(tensor.shape) for tensor in read_tensors(checkpoint).values()))


def _require_buildable(type_name: str, importance: Importance | None) -> str:
    """The type's exact name; refused before any work when there is none, or it and the matrix do not go together."""
    from ...quantize import types

    kind = types.find(type_name)
    if kind.needs_imatrix and importance is None:
        raise InputError(
            f"{kind.name} needs an importance matrix, and a text to collect it on",
            hint=f"ingle pull MODEL -t {kind.name} --imatrix auto --on TEXT; ingle quantize --types lists types that "
            "need none",
            param="type",
        )
    if importance and kind.name in PLAIN_TYPES:
        raise InputError(f"nothing is quantized to {kind.name}: --imatrix would change nothing", param="imatrix")
    return kind.name


def _require_space(workshop: Workshop, type_name: str, weights_bytes: int, download: tuple[Path, int]) -> None:
    """Raise ``DiskFull`` unless download and finished file will fit, before any of it starts."""
    from ...quantize import types

    kind = types.find(type_name)
    build_bytes = int(weights_bytes / BYTES_PER_WEIGHT * max(kind.bits_8b, kind.bits) / 8) + HEADER_ALLOWANCE_BYTES
    cache, download_bytes = download
    if _device(cache) == _device(workshop.store.home):
        require_space(workshop.store.home, build_bytes + download_bytes)
    else:
        require_space(cache, download_bytes)
        require_space(workshop.store.home, build_bytes)


def _device(folder: Path) -> int:
    return next(path for path in (folder, *folder.parents) if path.exists()).stat().st_dev


def type_of_file(path: Path) -> str:
    """What a GGUF says of the type of its weights; ``GGUF`` where that is none we know."""
    from ...convert import gguf
    from ...quantize.types import TYPES

    file_type = gguf.read(path).metadata.get("general.file_type")
    return next((kind.name for kind in TYPES.values() if kind.native_id == file_type), "GGUF")
