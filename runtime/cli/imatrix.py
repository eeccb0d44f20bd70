"""``ingle imatrix``: which inputs of a model's weights matter, for a better quantization."""

from __future__ import annotations

from pathlib import Path

import click

from ...convert.errors import InputError
from .display import emit_json, human_size, note, progress_bar
from .options import THREADS

FILE = click.Path(path_type=Path)


@click.command("imatrix", short_help="Find which weights of a model matter most.")
@click.argument("model")
@click.option("--on", type=FILE, required=True, help="A text, or a .jsonl file of prompts or chats.")
@click.option("-o", "--out", type=FILE, help="File to write. [default: NAME-imatrix.gguf, here]")
@click.option("--add", type=FILE, multiple=True, help="Add what this earlier file holds; may be given several times.")
@click.option("--ctx", type=click.IntRange(2), help="Tokens of a chunk [default: 512], or the most of a record.")
@click.option("--chunks", type=click.IntRange(1), help="Use only the first so many chunks or records.")
@click.option("--threads", type=THREADS, help="CPU threads. [default: physical cores]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def imatrix_command(
    model: str,
    on: Path,
    out: Path | None,
    add: tuple[Path, ...],
    ctx: int | None,
    chunks: int | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Read a text with MODEL, and write how large the inputs of each of its weights are.

    `ingle quantize --imatrix FILE` keeps the weights of large inputs more exact. The file is llama.cpp's own:
    llama-quantize and llama-imatrix read it, and files of theirs can be used here.
    """
    from ...quantize import imatrix
    from ..measure.activations import collect
    from ..measure.wish import Wish
    from ..store.build import obtain
    from ..store.store import Store

    earlier = [imatrix.read(path) for path in add]
    with progress_bar() as progress:
        path = obtain(model, Store(), progress=progress).path
        target = out or Path(f"{path.stem}-imatrix.gguf")
        _require_other_file(target, (path, on))
        found = collect(path, Wish(on, ctx, chunks, threads), progress)
    for other in earlier:
        found = other.merged(found)
    imatrix.write(target, found)
    unused = {name: entry.unused for name, entry in found.entries.items() if entry.unused}
    if as_json:
        emit_json({
            "path": str(target),
            "size_bytes": target.stat().st_size,
            "weights": len(found.entries),
            "chunks": found.chunk_count,
            "chunk_size": found.chunk_size,
            "datasets": list(found.datasets),
            "unused_experts": unused,
        })  # fmt: skip
        return
    size = human_size(target.stat().st_size)
    click.echo(
        f"{target}  {size}, {len(found.entries)} weights, {found.chunk_count} chunks of {found.chunk_size} tokens"
    )
    if unused:
        note(f"{sum(unused.values())} experts in {len(unused)} weights met no token; more text would reach them")


def _require_other_file(target: Path, sources: tuple[Path, ...]) -> None:
    """Before the text is read, which takes long; an earlier matrix may be replaced by itself and more."""
    if target.is_dir():
        raise InputError(f"{target} is a folder", hint="name the file to write")
    if any(target.exists() and source.exists() and target.samefile(source) for source in sources):
        raise InputError(f"{target} is what is read", hint="write to another file")
