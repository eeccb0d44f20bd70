"""What the server may load: the models it was started with, and what the store holds. It never fetches anything."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from ...convert.errors import BadGGUF, BadName, BadRequest, ModelNotFound
from ...convert.progress import Progress, silent
from ..options import AdapterFile, LoadOptions
from ..store.build import obtain, type_of_file, with_draft
from ..store.manifest import Entry
from ..store.names import HubName, parse
from ..store.store import Store
from .pool import Installed, Servable

log = logging.getLogger("ingle.server")

MOST_LISTED = 20


@dataclass(frozen=True, slots=True)
class Given:
    """A model named on the command line, or in the configuration; ``text`` is how.

    options: how it is loaded, where that is not as all others are.
    """

    text: str
    installed: Installed
    options: LoadOptions | None = None


class StoreCatalog:
    """Given models answer to the text they were given by, too. Clients cannot name folders and files.

    aliases: further names of models; a request may use them in every dialect.

    Raises:
        BadRequest: an alias is the name of a model itself. ModelNotFound: it stands for none.
    """

    def __init__(
        self,
        store: Store,
        options: LoadOptions,
        given: Iterable[Given] = (),
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self._store = store
        self._options = options
        self._given = tuple(given)
        _refuse_twins(self._given)
        self._aliases: dict[str, Installed] = {}
        self._aliases = {alias: self._alias(alias, name) for alias, name in (aliases or {}).items()}

    def list(self) -> Sequence[Installed]:
        kept = [_installed(entry, entry.name) for entry in self._store.list() if isinstance(parse(entry.name), HubName)]
        given = [one.installed for one in self._given]
        models = {model.name: model for model in (*kept, *given, *self._aliases.values())}
        return sorted(models.values(), key=lambda model: model.name)

    def find(self, name: str) -> Installed:
        if name in self._aliases:
            return self._aliases[name]
        for given in self._given:
            if name in (given.text, given.installed.name):
                return given.installed
        try:
            if isinstance(parse(name), HubName):
                entry = self._store.find(name)
                return _installed(entry, entry.name)
        except (BadName, ModelNotFound):
            pass
        raise self._not_found(name)

    def default(self) -> Installed:
        """The model that the server was started with, or the only one that is kept; adapters want to be named."""
        given = [one.installed for one in self._given if not one.installed.adapters]
        there = given or list(self.list())
        if len({model.place for model in there}) == 1:
            return there[0]
        raise BadRequest("model is missing", hint=self._available(), param="model")

    def load(self, installed: Installed) -> Servable:
        from ..model import Model
        from ..tasks.model import is_for_tasks
        from ..tasks.process import TaskProcess, refuse_additions

        options = next((o.options for o in self._given if o.options and o.installed.place == installed.place), None)
        options = options or self._options
        adapters = options.adapters if installed.adapters is not None else ()
        options = replace(options, adapters=adapters, mmproj=installed.mmproj)
        if is_for_tasks(Path(installed.target)):
            if options.adapters or options.mmproj or options.draft:
                refuse_additions(installed.name)
            return TaskProcess(Path(installed.target), threads=options.threads)
        return Model.load(installed.target, options=options, isolation="process")

    def fetch(self, name: str, progress: Progress) -> Installed:
        """Fetch and build a model of the hub; clients cannot name folders and files."""
        if not isinstance(parse(name), HubName):
            raise BadName(f"{name[:100]!r} is not a model of the hub: those are called org/name", param="model")
        entry = obtain(name, self._store, progress=progress)
        return _installed(entry, entry.name)

    def remove(self, name: str) -> None:
        """Remove a kept model. Those that the server was started with stay."""
        if name in self._aliases:
            raise BadRequest(f"{name[:100]} is another name of {self._aliases[name].place}", param="model")
        if any(name in (given.text, given.installed.name) for given in self._given):
            raise BadRequest(f"the server was started with {name[:100]}", param="model")
        self._store.remove(self.find(name).name)

    def _alias(self, alias: str, name: str) -> Installed:
        """The model of a name under another one; loaded once for both."""
        with contextlib.suppress(ModelNotFound):
            self.find(alias)
            raise BadRequest(f"the alias {alias} is the name of a model already")
        found = self.find(name)
        return replace(found, name=alias, model=found.place, alias_of=found.name)

    def _not_found(self, name: str) -> ModelNotFound:
        return ModelNotFound(f"there is no model {name[:100]!r} here", hint=self._available(), param="model")

    def _available(self) -> str:
        names = [model.name for model in self.list()]
        more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
        there = ", ".join(names[:MOST_LISTED]) + more if names else "nothing yet (run: ingle pull org/name)"
        return f"available: {there}"


def prepare(texts: Iterable[str], store: Store, progress: Progress = silent, mmproj: str | None = None) -> list[Given]:
    """The models named on the command line, fetched and built where they are not here yet; ``mmproj`` is the projector
    of all of them.

    Raises:
        BadRequest: two of them would be called the same.
    """
    given = [_prepared(text, store, progress, mmproj) for text in dict.fromkeys(texts)]
    _refuse_twins(given)
    return given


def _refuse_twins(given: Iterable[Given]) -> None:
    """Raise :class:`BadRequest` if two models are called the same."""
    by_name: dict[str, Given] = {}
    for one in given:
        other = by_name.setdefault(one.installed.name, one)
        if (other.installed.target, other.options) != (one.installed.target, one.options):
            raise BadRequest(f"{other.text} and {one.text} would both be called {one.installed.name}")


def with_adapters(given: Sequence[Given], adapters: Sequence[AdapterFile]) -> list[Given]:
    """Models given with adapters: each without any, and with each of them as ``MODEL:NAME``."""
    if not adapters:
        return list(given)
    plain = [replace(one, installed=replace(one.installed, adapters=())) for one in given]
    return [*plain, *(_adapted(one, adapter.name) for one in plain for adapter in adapters)]


def _adapted(one: Given, name: str) -> Given:
    base = one.installed
    adapted = replace(base, name=f"{base.name}:{name}", adapters=(name,), model=base.name)
    return Given(f"{one.text}:{name}", adapted, one.options)


def configured(
    name: str, path: str, options: LoadOptions, keep_alive_s: float | None, store: Store, progress: Progress = silent
) -> list[Given]:
    """A model of the configuration, called ``name`` by clients, and each of its adapters as ``NAME:ADAPTER``."""
    (one,) = prepare([path], store, progress, options.mmproj)
    options = with_draft(options, store, progress)
    installed = replace(one.installed, name=name, keep_alive_s=keep_alive_s)
    return with_adapters([Given(name, installed, options)], options.adapters)


def _prepared(text: str, store: Store, progress: Progress, mmproj: str | None) -> Given:
    log.info("preparing %s", text)
    installed = _called(text, obtain(text, store, progress=progress))
    return Given(text, replace(installed, mmproj=mmproj or installed.mmproj))


def _called(text: str, entry: Entry) -> Installed:
    """A model of the hub keeps its name; a folder or a file is called by its last part."""
    if isinstance(parse(text), HubName):
        return _installed(entry, entry.name)
    installed = _installed(entry, Path(text).expanduser().resolve().name.removesuffix(".gguf"))
    with contextlib.suppress(BadGGUF):  # which the loader says better
        installed = replace(installed, type=entry.type or type_of_file(entry.path))
    return installed


def _installed(entry: Entry, name: str) -> Installed:
    mmproj = str(entry.projector.path) if entry.projector else None
    return Installed(name, str(entry.path), entry.size_bytes, _created(entry), mmproj=mmproj, type=entry.type)


def _created(entry: Entry) -> int:
    """Unix time: when it was kept, or for a file of somebody else when it was written."""
    if entry.created:
        return int(datetime.fromisoformat(entry.created).timestamp())
    return int(entry.path.stat().st_mtime)
