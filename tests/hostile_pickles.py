"""Sixty and more files that a pickle reader must survive: programs, bombs and lies. Name -> bytes."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Iterator

from torchfile import CLASSES, archive, legacy, name, number, state, storage, text, view

# Each is a way to run code, or to reach a function that does.
GADGETS = (
    "os.system", "posix.system", "nt.system", "os.popen", "os.execv", "os.remove", "subprocess.Popen",
    "subprocess.check_output", "subprocess.run", "builtins.eval", "builtins.exec", "builtins.compile", "builtins.open",
    "builtins.getattr", "builtins.setattr", "builtins.__import__", "__builtin__.eval", "__main__.run",
    "importlib.import_module", "runpy.run_path", "runpy._run_code", "pty.spawn", "code.interact", "timeit.timeit",
    "cProfile.run", "pdb.run", "webbrowser.open", "socket.create_connection", "urllib.request.urlopen", "shutil.rmtree",
    "pathlib.PosixPath", "ctypes.CDLL", "marshal.loads", "types.FunctionType", "types.CodeType", "operator.attrgetter",
    "operator.methodcaller", "functools.partial", "copyreg._reconstructor", "copyreg.add_extension", "_codecs.encode",
    "collections.defaultdict", "collections.Counter", "numpy.load", "numpy.core.multiarray._reconstruct",
    "numpy.f2py.crackfortran.getlincoef", "torch.load", "torch.hub.load", "torch.jit.load",
    "torch.storage._load_from_bytes", "torch._utils._rebuild_wrapper_subclass", "torch._tensor._rebuild_from_type_v2",
    "torch.utils.cpp_extension.load_inline", "torch.fx.graph_module.reduce_graph_module",
)  # fmt: skip
SHELL = "touch CANARY"
FLOATS = CLASSES["F32"]
EIGHT = storage("0", FLOATS, 8)


def files() -> Iterator[tuple[str, bytes]]:
    """All cases."""
    for index, gadget in enumerate(GADGETS):
        call = name(gadget) + b"(" + text(SHELL) + b"tR"
        # In turn: as an archive, as the old format, and as the bare pickle that torch never wrote.
        whole = (archive(state({"w": call}), {}), legacy(state({"w": call}), {}), b"\x80\x02" + call + b".")[index % 3]
        yield f"calls {gadget}", whole
    for kind, pickled in {**ways_to_call(), **bombs(), **oddities()}.items():
        yield kind, archive(pickled, {"0": bytes(32)})
    yield from archives()


def ways_to_call() -> dict[str, bytes]:
    """Other opcodes than GLOBAL and REDUCE that call something."""
    system, arguments = name("os.system"), b"(" + text(SHELL) + b"t"
    stacked = text("os") + text("system") + b"\x93"
    return {
        "stack_global": state({"w": stacked + arguments + b"R"}),
        "inst": state({"w": b"(" + text(SHELL) + b"ios\nsystem\n"}),
        "obj": state({"w": b"(" + system + text(SHELL) + b"o"}),
        "newobj": state({"w": system + arguments + b"\x81"}),
        "newobj_ex": state({"w": system + arguments + b"}\x92"}),
        "extension": state({"w": b"\x82\x01" + arguments + b"R"}),
        "text persistent id": state({"w": b"Pstorage\n"}),
        "build on a call": state({"w": name("torch._utils._rebuild_parameter") + b"}b"}),
        "setstate of a dict": state({"w": b"}" + text("__setstate__") + system + b"s}b"}),
        "storage class of os": state({"w": view(storage("0", "os.system", 8), (2,))}),
        "dtype of os": state({"w": name("torch._utils._rebuild_tensor_v3") + b"(" + EIGHT + b"K\0))" + b"\x89N"
                              + system + b"tR"}),
        "hooks that call": state({"w": view(EIGHT, (2,)).replace(b")R", arguments + b"R", 1)}),
        "dotted name": state({"w": name("collections.OrderedDict.fromkeys") + arguments + b"R"}),
        "ordered dict of itself": state({"w": name("collections.OrderedDict") + b"((]]tR"}),
    }  # fmt: skip


def bombs() -> dict[str, bytes]:
    """Small files that ask for much memory or time."""
    prime = (1 << 61) - 1
    colliding = b"".join(b"\x8a\x10" + (i * prime).to_bytes(16, "little") + b"N" for i in range(1, 20_000))
    return {
        "memo bomb": b"\x80\x02}r\xff\xff\xff\xff" * 100 + b".",
        "hash bomb": b"\x80\x02}(" + colliding + b"u.",
        "nested tuples": b"\x80\x02)" + b"\x85" * 490_000 + b".",
        "nested lists": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
        "a list of lists": b"\x80\x02(" + b"]" * 499_990 + b"l.",
        "too many opcodes": b"\x80\x02" + b"N" * 1_000_000 + b".",
        "too many marks": b"\x80\x02" + b"(" * 1_000_000 + b".",
        "laughs": b"\x80\x02]q\x00" + b"(" + b"h\x00" * 60 + b"e" * 1 + b"h\x00a" * 100_000 + b".",
        "a text of 4 GB": b"\x80\x02X\xff\xff\xff\xffabc.",
        "bytes of 8 EB": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fabc.",
        "a frame of 8 EB": b"\x80\x04\x95" + b"\xff" * 8 + b".",
        "a number of 255 bytes": b"\x80\x02\x8a\xff" + b"\xff" * 255 + b".",
        "a number of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7f.",
        "a decimal number": b"\x80\x02I" + b"9" * 100_000 + b"\n.",
        "a name without end": b"\x80\x02c" + b"a" * 1_000_000,
        "16 MB of nothing": b"\x80\x02" + (b"X\x00\xff\x00\x00" + b"a" * 0xFF00 + b"0") * 300 + b".",
        "a huge storage": state({"w": view(storage("0", FLOATS, 1 << 47), (2,))}),
        "a huge tensor": state({"w": view(EIGHT, (1 << 30, 1 << 30), (0, 0))}),
        "copies by dup": b"\x80\x02]" + b"2" * 100_000 + b".",
    }


def oddities() -> dict[str, bytes]:
    """What is neither a program nor a bomb, nor a state dict."""
    return {
        "empty": b"",
        "no end": b"\x80\x02}",
        "only an end": b".",
        "protocol 0": b"(dp0\nVw\np1\nI1\ns.",
        "protocol 200": b"\x80\xc8}.",
        "no dict": b"\x80\x02K\x01.",
        "an empty dict": b"\x80\x02}.",
        "an entry twice": state({"w": view(EIGHT, (2,))})[:-2] + text("w") + view(EIGHT, (2,)) + b"u.",
        "a tuple as key": b"\x80\x02}()" + view(EIGHT, (2,)) + b"u.",
        "a key without value": b"\x80\x02}(" + text("w") + b"u.",
        "not UTF-8": b"\x80\x02}(X\x01\x00\x00\x00\xff" + view(EIGHT, (2,)) + b"u.",
        "a pop too many": b"\x80\x02}aaa.",
        "a mark too few": b"\x80\x02}u.",
        "a value never noted": b"\x80\x02h\x07.",
        "a list in itself": b"\x80\x02]q\x00h\x00a.",
        "a tensor outside": state({"w": view(EIGHT, (9,))}),
        "a path as key": state({"w": view(storage("../../etc/passwd", FLOATS, 8), (2,))}),
        "an optimizer": state({"w": number(1), "state": b"}"}),
    }


def archives() -> Iterator[tuple[str, bytes]]:
    """Archives that are not what torch writes, and files that are no archives."""
    good = state({"w": view(EIGHT, (2, 4))})
    whole = archive(good, {"0": bytes(32)})
    yield "cut in half", whole[: len(whole) // 2]
    yield "cut at the end", whole[:-1]
    yield "bytes behind", whole + b"\0"
    yield "a program of TorchScript", archive(good, {"0": bytes(32)}, **{"constants.pkl": b"\x80\x02)."})
    yield "a member of other size", archive(good, {"0": bytes(31)})
    yield "two roots", zipped({"a/data.pkl": good, "b/data.pkl": good})
    yield "no root", zipped({"data.pkl": good})
    yield "a root above", zipped({"../data.pkl": good, "../data/0": bytes(31)})
    yield "compressed", zipped({"root/data.pkl": good, "root/data/0": bytes(1 << 20)}, zipfile.ZIP_DEFLATED)
    yield "many members", many_members(200_000)
    yield "a directory of 4 billion", whole[:-12] + struct.pack("<HHLLH", 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0, 0)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as file:
        file.addfile(tarfile.TarInfo("pickle"), io.BytesIO())
    yield "a tar", tar.getvalue()
    yield "legacy of another magic", pickle.dumps(1, 2) * 5
    yield "legacy of a tensor less", legacy(good, {})
    yield "legacy with a storage of 2^62", legacy(good, {"0": (1 << 62, b"")})
    yield "text", b"#!/bin/sh\ntouch CANARY\n"


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for called, data in members.items():
            file.writestr(called, data)
    return out.getvalue()


def many_members(count: int) -> bytes:
    """A directory that says so, without the members."""
    entry = b"PK\1\2" + bytes(42)
    end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, count * len(entry), 4)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 4 + count * len(entry), 1)
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return b"PK\3\4" + entry * count + end + locator + tail
