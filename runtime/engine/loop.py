"""The loop of the one thread that owns a model: schedule, decode, sample, emit."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ...convert.errors import Cancelled, EngineClosed, EngineError, IngleError, QueueFull
from ..llama.context import Aborted, Context
from ..llama.model import NativeModel
from ..llama.projector import NativeProjector
from ..options import LoadOptions
from ..request import EngineStats, ModelInfo, StopDetail
from . import batch, sampling
from .choice import Choice, Flight
from .counts import Counts, clocks
from .crew import Crew
from .detokenizer import Detokenizer
from .drafter import Drafter
from .drafts import Drafts
from .drawing import TokenSource
from .groups import Groups
from .habit import Habit
from .info import context_options, limits
from .priority import rank
from .rest import Inbox, Rest, look_around
from .scheduler import Scheduler
from .sequence import Row, Sequence
from .shelf import Realms, shelf
from .stream import Accepted, Finished

QUICK_S = 0.0125
"""Of a step, after which the text of two or more may leave together."""


class Loop:
    """Requests in flight over one context. :meth:`run` is the thread; others ``enter``, ``cancel`` and ``stop``."""

    def __init__(
        self,
        model: NativeModel,
        projector: NativeProjector | None,
        drafter: Drafter | None,
        info: ModelInfo,
        options: LoadOptions,
        after_round: Callable[[bool], None],
    ) -> None:
        self._model = model
        self._projector = projector
        self._info = info
        self._after_round = after_round
        self._capacity = options.parallel + options.max_queue
        rows_together = projector.rows_together if projector else 0
        self._context = Context(model, context_options(info, options, rows_together))
        shares = options.prefix_cache and model.can_share_prefix
        self._shelf = shelf(model, info, options, self._context)
        blocks = self._shelf.blocks if self._shelf else None
        self._habit = Habit(info, options)
        pace = self._habit.pace(options.itl_target_s)
        whole = options.prefix_cache and not shares
        self._scheduler = Scheduler(limits(info, options), self._context, shares, pace, blocks=blocks, whole=whole)
        self._end_tokens = frozenset(info.eog_tokens)
        self._end_indices = np.array(info.eog_tokens, np.int64)
        self._groups = Groups(model, self._context)
        self._realms = Realms(self._shelf)
        self._choices: dict[Sequence, Choice] = {}
        self._flights: set[Flight] = set()
        self._inbox: Inbox = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._reading: set[Flight] = set()
        self._leaving = False
        self._filled: list[Row] | None = None
        self._growing: list[Choice] = []
        self._plain = False
        self.stopped = False
        self._counts = Counts()
        self._drafts = Drafts(options, model, info.context_length, self._counts, drafter)
        self._rest = Rest(options.rest_after_s, model, self._context, self._scheduler, self._drafts)

    # ---- any thread -------------------------------------------------------------------------------------------

    def enter(self, flight: Flight) -> None:
        """Queue a flight. Raises :class:`QueueFull` or :class:`EngineClosed`."""
        with self._lock:
            if self.stopped:
                raise EngineClosed("the engine is shut down")
            if len(self._flights) >= self._capacity:
                raise QueueFull(
                    f"{len(self._flights)} requests are in flight, which is all that this engine takes",
                    hint="try again in a moment",
                )
            self._flights.add(flight)
        flight.emit(Accepted(len(flight.prompt.tokens)))
        self._inbox.put(lambda: self._arrive(flight))

    def cancel(self, flight: Flight) -> None:
        """Stop working for a flight; at the next node of the graph, if its prompt is being read right now."""
        with self._lock:
            flight.cancelled = self._leaving = True
            if flight in self._reading:
                self._context.abort()
        self._inbox.put(look_around)

    def stop(self) -> None:
        """End the thread as soon as it can be; flights end with :class:`EngineClosed`."""
        with self._lock:
            self.stopped = True
            if self._reading:
                self._context.abort()
        self._inbox.put(look_around)

    def stats(self) -> EngineStats:
        """Counters since the start and gauges of now."""
        return EngineStats(
            **self._counts.all,
            **self._scheduler.figures(),
            kv_cells=self._info.kv_cells,
            resting=self._rest.resting,
            disk_bytes=self._shelf.bytes if self._shelf else 0,
        )

    def run(self) -> None:
        """Work until stopped, then free the context and the model."""
        self._crew = Crew(self._info, self._context)
        try:
            while not self.stopped:
                self._take_inbox()
                self._land_cancelled()
                self._step()
                self._after_round(self._goes_on)
        finally:
            self._shut_down()
            self._after_round(False)

    @property
    def _goes_on(self) -> bool:
        """Whether another quick step will be made at once."""
        return self._filled is not None and bool(self._scheduler.running) and self._counts.seconds < QUICK_S

    def _step(self) -> None:
        rows = self._scheduler.schedule()
        if drafted := self._drafts.beside(rows, self._choices, self._scheduler):
            self._step_ahead(drafted)
        elif rows is self._filled:
            self._step_again(rows)
        elif rows and (outputs := self._decode(rows)) is not None:
            self._scheduler.advance(rows)
            growing = [(self._choices[row.sequence], outputs[row.sequence.slot]) for row in rows if row.output]
            if len(growing) == len(rows) == sum(row.count for row in rows):
                self._filled, self._growing = rows, [choice for choice, _ in growing]
                self._plain = all(choice.plain for choice in self._growing)
            for choice, index in growing:
                self._choose(choice, self._context.logits(index))

    def _step_again(self, rows: list[Row]) -> None:
        """The step before, one token further: nobody came or went, which is what most steps are like."""
        began = clocks()
        try:
            self._context.decode_next((row.sequence.tokens[-1], row.sequence.position) for row in rows)
        except (Aborted, EngineError) as error:
            self._give_up(rows, error)
            return
        seconds = self._counts.step(len(rows), len(rows), began)
        self._scheduler.pace.observe(len(rows), 0, seconds)
        self._drafts.none(rows, seconds)
        self._crew.watch(len(rows), self._counts)
        self._scheduler.advance(rows)
        if self._plain and (tokens := self._context.all_best(len(rows))) is not None:
            for choice, token in zip(self._growing, tokens, strict=True):
                self._grow(choice, token)
        else:
            for choice, logits in zip(self._growing, self._context.all_logits(len(rows)), strict=True):
                self._choose(choice, logits)

    def _step_ahead(self, rows: list[Row]) -> None:
        """A step in which each row is followed by tokens that are foretold: those that are drawn, too, are kept."""
        choices = [self._choices[row.sequence] for row in rows]
        outputs = self._decode(rows)
        if outputs is None:
            return
        taken = [
            self._verify(row, choice, outputs[row.sequence.slot]) for row, choice in zip(rows, choices, strict=True)
        ]
        self._drafts.fared(rows, taken, choices, self._counts.seconds)

    def _verify(self, row: Row, choice: Choice, index: int) -> int:
        """Draw from the logits of one row after the other for as long as the token is the foretold one; returns how
        many were drawn. The cells of the others are let go."""
        sequence, taken = row.sequence, 0
        for foretold in (*row.draft, None):
            self._drafts.draws(row, choice, taken)
            self._scheduler.advance([Row(sequence, 1, True)])
            self._choose(choice, self._context.logits(index + taken))
            taken += 1
            if sequence.slot < 0 or sequence.pending > 1 or sequence.tokens[-1] != foretold:
                break
        if sequence.slot >= 0:
            self._context.remove(sequence.slot, sequence.position)
        return taken

    def _take_inbox(self) -> None:
        """Do all that was asked for; wait for it when there is nothing to compute."""
        if not self._scheduler.running and not self._scheduler.waiting:
            while self._inbox.empty() and self._scheduler.keep_one():
                pass
            if self._inbox.empty():
                self._habit.keep(self._scheduler.pace)
            self._rest.wait(self._inbox)()
        while not self._inbox.empty():
            self._inbox.get()()

    def _arrive(self, flight: Flight) -> None:
        if flight not in self._flights:
            return
        if (error := self._rest.end()) is not None:
            self._land(flight, error)
            return
        self._counts.add(requests=1, prompt_tokens=len(flight.prompt.tokens))
        for index in range(flight.request.n):
            choice = self._choice(flight, index)
            flight.open.append(choice)
            self._choices[choice.sequence] = choice
            self._scheduler.add(choice.sequence)

    def _choice(self, flight: Flight, index: int) -> Choice:
        request, tokens = flight.request, flight.prompt.tokens
        resolved = sampling.resolve(request.sampling, self._info.sampling, index)
        written = [token for token in tokens if token >= 0]
        source = TokenSource(resolved, self._model.vocab, self._info.context_length, written)
        group, adapters = self._groups.of(request.adapters)
        sequence = Sequence(
            list(tokens),
            len(tokens),
            flight.prompt.spans,
            group=group,
            rank=rank(request.priority),
            realm=self._realms.number(request.owner, adapters),
        )
        matcher = flight.matchers[index] if flight.matchers else None
        lookup = self._drafts.lookup(request.sampling, resolved, sequence.tokens)
        return Choice(flight, index, sequence, source, Detokenizer(request.stop), matcher, lookup)

    def _decode(self, rows: list[Row]) -> dict[int, int] | None:
        """Compute the rows; None if the step was aborted or failed and has to be scheduled anew."""
        self._filled = None
        self._after_round(False)  # what was held back does not wait for a long step
        self._note_start(rows)
        if not self._open_step(rows):
            return None
        self._crew.prepare(self._choices.values())
        began = clocks()
        self._groups.use(rows[0].sequence.group)
        try:
            outputs = batch.compute(self._context, rows, self._projector)
        except (Aborted, EngineError) as error:
            self._close_step()
            self._give_up(rows, error)
            return None
        self._close_step()
        evaluated, decoding = sum(row.count for row in rows), sum(row.sequence.decoding for row in rows)
        seconds = self._counts.step(evaluated, len(outputs), began)
        if rows[0].sequence.span is None and not rows[0].draft:
            self._scheduler.pace.observe(decoding, evaluated - decoding, seconds)
        self._crew.settle()
        return outputs

    def _give_up(self, rows: list[Row], error: Aborted | EngineError) -> None:
        """The step was stopped, or failed: then everybody in it does."""
        self._filled = None
        if isinstance(error, Aborted):
            self._counts.add(aborted_steps=1)
        else:
            for row in rows:
                self._land(self._choices[row.sequence].flight, error)
        self._repair(rows)

    def _open_step(self, rows: list[Row]) -> bool:
        """Tell :meth:`cancel` whose prompts the step reads; False if one of them was cancelled just now."""
        reading = {self._choices[row.sequence].flight for row in rows if row.count > 1}
        with self._lock:
            if self.stopped or any(flight.cancelled for flight in reading):
                return False
            self._reading = reading
        return True

    def _close_step(self) -> None:
        with self._lock:
            self._reading = set()
            self._context.clear_abort()

    def _repair(self, rows: list[Row]) -> None:
        """A recurrent state cannot be cut back to where the step began: it is computed again."""
        if not self._model.can_share_prefix:
            for row in rows:
                if row.sequence in self._scheduler.running:
                    self._scheduler.restart(row.sequence)

    def _note_start(self, rows: list[Row]) -> None:
        for row in rows:
            flight = self._choices[row.sequence].flight
            if not flight.started:
                flight.started = time.monotonic()
                flight.cached_tokens = row.sequence.cached or 0
                self._counts.add(cached_tokens=flight.cached_tokens)

    def _choose(self, choice: Choice, logits: NDArray[np.float32]) -> None:
        if choice not in choice.flight.open:
            return  # another choice of its request failed just now
        try:
            if choice.generated or not self._force(choice, instead=1):
                self._grow(choice, choice.choose(logits, self._end_indices, self._model.vocab))
                self._force(choice)
        except IngleError as error:
            self._land(choice.flight, error)

    def _force(self, choice: Choice, instead: int = 0) -> bool:
        """Take all tokens that a constraint leaves no choice about: they are computed together, as those of a prompt
        are. Says whether there were some; ``instead`` of so many drawn ones, which were counted already."""
        tokens, before = choice.forced(), choice.generated
        for token in tokens:
            choice.accept(token)
            self._grow(choice, token)
            if choice not in choice.flight.open:
                break
        if taken := choice.generated - before:
            self._filled = None
            self._scheduler.unsettle()
            self._counts.add(generated_tokens=taken - instead, forced_tokens=taken)
        return bool(taken)

    def _grow(self, choice: Choice, token: int) -> None:
        """Take the next token of a choice, and end the choice if that was its last."""
        flight = choice.flight
        if not flight.first_token:
            flight.first_token = time.monotonic()
        flight.completion_tokens += 1
        choice.generated += 1
        if token in self._end_tokens:
            self._complete(choice, choice.detokenizer.finish(), "eos")
            return
        choice.append(token)
        text = choice.detokenizer.feed(self._model.vocab.piece(token, special=token in flight.shown))
        if (detail := choice.ending(self._info.context_length)) is None:
            choice.emit(text)
        else:
            self._complete(choice, text + choice.detokenizer.finish(), detail)

    def _complete(self, choice: Choice, text: str, detail: StopDetail) -> None:
        choice.emit(text, detail)
        self._release(choice)
        flight = choice.flight
        if not flight.open:
            self._flights.discard(flight)
            flight.emit(Finished(flight.usage()))

    def _land_cancelled(self) -> None:
        if not self._leaving:
            return
        with self._lock:
            self._leaving = False
            cancelled = [flight for flight in self._flights if flight.cancelled]
        for flight in cancelled:
            self._counts.add(cancelled=1, failed=-1)
            self._land(flight, Cancelled("the request was cancelled"))

    def _land(self, flight: Flight, error: IngleError) -> None:
        """End a flight with an error."""
        if flight in self._flights:
            for choice in list(flight.open):
                self._release(choice)
            self._flights.discard(flight)
            self._counts.add(failed=1)
            flight.emit(error)

    def _release(self, choice: Choice) -> None:
        choice.flight.open.remove(choice)
        del self._choices[choice.sequence]
        self._scheduler.finish(choice.sequence)
        self._drafts.forget(choice.sequence)
        choice.source.close()

    def _shut_down(self) -> None:
        with self._lock:
            self.stopped = True
            flights = list(self._flights)
        for flight in flights:
            self._land(flight, EngineClosed("the engine was shut down"))
        self._context.close()
        self._drafts.close()
        if self._shelf:
            self._shelf.close()
        if self._projector is not None:
            self._projector.close()
        self._model.close()
