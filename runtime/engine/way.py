"""How a model is to be computed on this machine: what was asked for, or else what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .. import machine
from ..llama import calibration
from ..llama.kernels import repacking_pays
from ..options import FlashAttention, LoadOptions
from . import sizing


@dataclass(frozen=True, slots=True)
class Way:
    """repack: whether weights may be laid out anew; flash_attention: "auto" where nothing says that it is faster."""

    repack: bool
    flash_attention: FlashAttention
    measured: bool = False


def choose(path: Path, options: LoadOptions) -> Way:
    """The quickest way within ``options``. Measures, for a second at most, where nobody did so yet.

    Raises:
        InputError: an option is out of range.
    """
    sizing.validate(options)
    flash_attention = sizing.decided_flash_attention(options)
    if options.gpu_layers or (options.repack != "auto" and flash_attention != "auto"):
        return Way(_repacks(options), flash_attention)
    found = calibration.ways(path, options.threads or machine.thread_count(), options.kv_type)
    allowed = [way for way in found if options.repack in ("auto", "on" if way.repack else "off")]
    fastest = calibration.fastest(allowed, {"auto": None, "on": True, "off": False}[flash_attention])
    if fastest is None:
        return Way(_repacks(options), flash_attention)
    return Way(fastest.repack, "on" if fastest.flash_attention else "off", measured=True)


def _repacks(options: LoadOptions) -> bool:
    return options.repack == "on" or (options.repack == "auto" and repacking_pays())
