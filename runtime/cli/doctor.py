"""``ingle doctor``: what this machine offers the kernels, and how a model is computed on it, and why."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from .. import machine
from ..options import LoadOptions
from .display import progress_bar
from .options import load_options


@click.command()
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@load_options
def doctor_command(model: str | None, as_json: bool, options: LoadOptions) -> None:
    """Say what this machine offers, and which way MODEL is computed on it, measured where nobody did so yet."""
    from ..bert.native import quick_way
    from ..llama.kernels import extra_buffers_work
    from ..llama.library import levels, library

    features = library().llama_print_system_info().decode()
    found: dict[str, Any] = {
        "threads": options.threads or machine.thread_count(),
        "available_memory_bytes": machine.available_memory_bytes(),
        "kernels": [part.split(" = ")[0].strip() for part in features.partition(":")[2].split("|") if "= 1" in part],
        "amx_works": extra_buffers_work(),
        "attention": levels().attention,
        "products": levels().products,
        "bert_layers": quick_way(),
    }
    if model is not None:
        found |= _way(model, options)
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"threads          {found['threads']}")
    click.echo(f"memory           {machine.available_memory_bytes() / 2**30:.1f} GiB available")
    click.echo(f"kernels          {' '.join(found['kernels'])}")
    if not extra_buffers_work():
        click.echo("AMX              crashes in this build of llama.cpp, and is not used")
    click.echo(f"attention        {found['attention'] or 'llama.cpp: ours is off, not compiled, or not for this CPU'}")
    click.echo(f"products         {found['products'] or 'llama.cpp: ours are off, not compiled, or not for this CPU'}")
    click.echo(f"layers of BERT   {found['bert_layers'] or 'llama.cpp: no compiled ones are quicker here'}")
    if model is not None:
        _print_way(found)


def _way(model: str, options: LoadOptions) -> dict[str, Any]:
    from ..engine import way
    from ..llama import calibration
    from ..store.build import obtain, with_draft
    from ..store.store import Store

    with progress_bar() as progress:
        path = Path(obtain(model, Store(), progress=progress).path)
        options = with_draft(options, Store(), progress)
    chosen = way.choose(path, options)
    measured = calibration.ways(path, options.threads or machine.thread_count(), options.kv_type)
    return {
        "model": model,
        "repack": chosen.repack,
        "flash_attention": chosen.flash_attention,
        "measured": chosen.measured,
        "ways": [{**asdict(one), "turn_s": one.turn_s} for one in measured],
        "draft": _draft(path, options) if options.draft else None,
    }


def _draft(path: Path, options: LoadOptions) -> dict[str, Any] | None:
    from ..engine.plan import plan

    decided = plan(path, options)
    if decided.draft is None:
        return None
    return {
        "path": str(decided.draft.file.path),
        "repack": decided.draft.repack,
        "common_tokens": decided.draft.vocabulary,
        "memory_bytes": decided.footprint.draft,
    }


def _print_way(found: dict[str, Any]) -> None:
    attention = found["flash_attention"]
    why = "the quickest turn of a chat" if found["measured"] else "not measured: too small, too large, or busy cores"
    click.echo(f"weights          {'repacked' if found['repack'] else 'as in the file'} ({why})")
    click.echo(f"flash attention  {'off unless memory is short' if attention == 'auto' else attention}")
    if draft := found["draft"]:
        click.echo(
            f"draft model      {draft['path']}: {draft['common_tokens']:,} tokens in common, "
            f"{draft['memory_bytes'] / 2**20:.0f} MiB with its cache; asked where that pays"
        )
    for one in found["ways"]:
        layout = "repacked" if one["repack"] else "as in the file"
        flash = "with" if one["flash_attention"] else "without"
        click.echo(
            f"  {layout}, {flash} flash attention: a token of a prompt {one['prompt_s'] * 1e6:.0f} µs, of an answer "
            f"{one['answer_s'] * 1e6:.0f} µs in the probe"
        )
