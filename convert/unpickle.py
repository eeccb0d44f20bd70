"""Pickles read as data. Nothing in them is imported or called: a name must be one that the reader gave a meaning to.

An interpreter of the few opcodes that ``torch.save`` writes (pickle protocols 2 to 5), with limits; every other opcode
is refused by its number. Opcodes: the module ``pickletools`` of the standard library.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import BadCheckpoint

MAX_OPCODES = 500_000
MAX_BYTES = 16 << 20
MAX_STRING_BYTES = 64 << 10
MAX_INTEGER_BYTES = 16
MAX_PROTOCOL = 5

Call = Callable[[tuple[Any, ...]], Any]
"""What arguments mean; None for those that mean nothing."""


@dataclass(frozen=True, slots=True)
class Name:
    """A global: ``module.name`` as it stands in the pickle."""

    text: str


class Pickle:
    """One pickle, from byte ``position`` of ``data``.

    where: how messages call it. calls: what a name does when the pickle calls it. names: further names that may occur
    as values. persistent: the meaning of a persistent id.
    """

    def __init__(
        self,
        data: Any,
        position: int,
        end: int,
        where: str,
        *,
        calls: Mapping[str, Call],
        names: frozenset[str] = frozenset(),
        persistent: Call | None = None,
    ) -> None:
        self._data = data
        self._end = min(end, position + MAX_BYTES)
        self._where = where
        self._calls = calls
        self._known = names | calls.keys()
        self._persistent = persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self.position = position

    def load(self) -> Any:
        """The value; ``position`` is then behind its last byte.

        Raises:
            BadCheckpoint: anything but plain data and known names, a limit is exceeded, or the pickle is damaged.
        """
        for _ in range(MAX_OPCODES):
            opcode = self._take(1)[0]
            if opcode == STOP:
                return self._pop()
            action = ACTIONS.get(opcode)
            if action is None:
                raise self.broken(f"opcode 0x{opcode:02x} is not one of those that write tensors")
            action(self)
        raise self.broken(f"it has more than {MAX_OPCODES:,} opcodes")

    def broken(self, rule: str) -> BadCheckpoint:
        return BadCheckpoint(
            f"{self._where} is not a plain state dict: {rule}, at byte {self.position:,}",
            hint="nothing of it was executed; take a checkpoint with safetensors, or download the file again",
        )

    def _take(self, length: int) -> bytes:
        start, self.position = self.position, self.position + length
        if self.position > self._end:
            raise self.broken("it is cut off or too long")
        return bytes(self._data[start : self.position])

    def _uint(self, length: int) -> int:
        return int.from_bytes(self._take(length), "little")

    def _line(self) -> str:
        start = self.position
        end = self._data.find(b"\n", start, min(self._end, start + MAX_STRING_BYTES))
        if end < 0:
            raise self.broken("a name does not end")
        return self._text(self._take(end + 1 - start)[:-1])

    def _string(self, length: int) -> str:
        if length > MAX_STRING_BYTES:
            raise self.broken(f"a string claims {length:,} bytes")
        return self._text(self._take(length))

    def _text(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise self.broken("a string is not UTF-8") from error

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise self.broken("it takes from an empty stack")
        return self._stack.pop()

    def _since_mark(self) -> list[Any]:
        if not self._marks:
            raise self.broken("it has no mark to go back to")
        mark = self._marks.pop()
        values = self._stack[mark:]
        del self._stack[mark:]
        return values

    def _top(self, kind: type[Any]) -> Any:
        top = self._pop()
        if type(top) is not kind:
            raise self.broken(f"it fills a {type(top).__name__} like a {kind.__name__}")
        self._push(top)
        return top

    def _protocol(self) -> None:
        if (protocol := self._uint(1)) > MAX_PROTOCOL:
            raise self.broken(f"protocol {protocol} is unknown")

    def _frame(self) -> None:
        self._uint(8)

    def _global(self) -> None:
        module = self._line()
        self._name(f"{module}.{self._line()}")

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise self.broken("a name is not a string")
        self._name(f"{module}.{name}")

    def _name(self, text: str) -> None:
        if text not in self._known:
            raise self.broken(f"it refers to {text[:100]!r}, which is no tensor")
        self._push(Name(text))

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        call = self._calls.get(function.text) if isinstance(function, Name) else None
        if call is None or not isinstance(arguments, tuple):
            raise self.broken("it calls something that is no function of a tensor")
        self._push(self._meant(call(arguments)))

    def _build(self) -> None:
        """A state dict carries versions of its modules as attributes, which say nothing about tensors."""
        self._pop()
        self._top(dict)

    def _persistent_id(self) -> None:
        identity = self._pop()
        if self._persistent is None or not isinstance(identity, tuple):
            raise self.broken("it has a persistent id where none belongs")
        self._push(self._meant(self._persistent(identity)))

    def _meant(self, value: Any) -> Any:
        if value is None:
            raise self.broken("a tensor or storage is not described as torch.save describes it")
        return value

    def _put(self, index: int) -> None:
        value = self._pop()
        self._memo[index] = value
        self._push(value)

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise self.broken(f"it recalls number {index:,}, which it never noted")
        self._push(self._memo[index])

    def _long(self) -> None:
        if (length := self._uint(1)) > MAX_INTEGER_BYTES:
            raise self.broken(f"an integer claims {length} bytes")
        self._push(int.from_bytes(self._take(length), "little", signed=True))

    def _mark(self) -> None:
        self._marks.append(len(self._stack))

    def _tuple(self, length: int) -> None:
        self._push(tuple([self._pop() for _ in range(length)][::-1]))

    def _appends(self, values: list[Any]) -> None:
        self._top(list).extend(values)

    def _set_items(self, pairs: list[Any]) -> None:
        target = self._top(dict)
        if len(pairs) % 2:
            raise self.broken("a key has no value")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Other keys would be hashed by rules that the pickle can abuse.
            if not isinstance(key, str):
                raise self.broken(f"a key is a {type(key).__name__}, not a string")
            if key in target:
                raise self.broken(f"key {key[:100]!r} occurs twice")
            target[key] = value


STOP = ord(".")
Action = Callable[[Pickle], None]
ACTIONS: Mapping[int, Action] = {
    0x80: Pickle._protocol,
    0x95: Pickle._frame,
    ord("("): Pickle._mark,
    ord("N"): lambda pickle: pickle._push(None),
    0x88: lambda pickle: pickle._push(True),
    0x89: lambda pickle: pickle._push(False),
    ord("K"): lambda pickle: pickle._push(pickle._uint(1)),
    ord("M"): lambda pickle: pickle._push(pickle._uint(2)),
    ord("J"): lambda pickle: pickle._push(int.from_bytes(pickle._take(4), "little", signed=True)),
    0x8A: Pickle._long,
    ord("G"): lambda pickle: pickle._push(struct.unpack(">d", pickle._take(8))[0]),
    ord("X"): lambda pickle: pickle._push(pickle._string(pickle._uint(4))),
    0x8C: lambda pickle: pickle._push(pickle._string(pickle._uint(1))),
    ord("c"): Pickle._global,
    0x93: Pickle._stack_global,
    ord("R"): Pickle._reduce,
    ord("b"): Pickle._build,
    ord("Q"): Pickle._persistent_id,
    ord("q"): lambda pickle: pickle._put(pickle._uint(1)),
    ord("r"): lambda pickle: pickle._put(pickle._uint(4)),
    0x94: lambda pickle: pickle._put(len(pickle._memo)),
    ord("h"): lambda pickle: pickle._get(pickle._uint(1)),
    ord("j"): lambda pickle: pickle._get(pickle._uint(4)),
    ord(")"): lambda pickle: pickle._push(()),
    ord("t"): lambda pickle: pickle._push(tuple(pickle._since_mark())),
    0x85: lambda pickle: pickle._tuple(1),
    0x86: lambda pickle: pickle._tuple(2),
    0x87: lambda pickle: pickle._tuple(3),
    ord("]"): lambda pickle: pickle._push([]),
    ord("a"): lambda pickle: pickle._appends([pickle._pop()]),
    ord("e"): lambda pickle: pickle._appends(pickle._since_mark()),
    ord("}"): lambda pickle: pickle._push({}),
    ord("s"): lambda pickle: pickle._set_items([pickle._pop(), pickle._pop()][::-1]),
    ord("u"): lambda pickle: pickle._set_items(pickle._since_mark()),
}
