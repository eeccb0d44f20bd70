"""Run models: ``from ingle.runtime import Model``. Names are resolved on first use, so the import costs nothing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..convert.errors import IngleError as IngleError
    from .engine.stream import Stream as Stream
    from .model import Model as Model
    from .options import AdapterFile as AdapterFile
    from .options import LoadOptions as LoadOptions
    from .request import Delta as Delta
    from .request import Sampling as Sampling
    from .request import Usage as Usage
    from .tasks.classification import Classification as Classification
    from .tasks.encoder import Encoder as Encoder
    from .tasks.model import TaskModel as TaskModel

_HOMES = {
    "Model": ".model",
    "AdapterFile": ".options",
    "LoadOptions": ".options",
    "Sampling": ".request",
    "Delta": ".request",
    "Usage": ".request",
    "Stream": ".engine.stream",
    "IngleError": "..convert.errors",
    "Encoder": ".tasks.encoder",
    "TaskModel": ".tasks.model",
    "Classification": ".tasks.classification",
}
__all__ = [
    "AdapterFile", "Classification", "Delta", "Encoder", "IngleError", "LoadOptions", "Model", "Sampling", "Stream",
    "TaskModel", "Usage",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return __all__
