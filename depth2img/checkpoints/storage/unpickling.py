"""The stream of a pickle, followed without importing or calling anything that it names.

Every name stands for something inert: a container, a note of where a tensor lies, or a stand-in that does nothing; see
`names`. `torch.load` is not used: its `weights_only` had a hole before PyTorch 2.6, and it holds a whole file where one
tensor is wanted.
"""

from __future__ import annotations

import collections
import pickle
import struct
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar, Final

from ...text import printable
from .names import is_hostile

MAX_STREAM: Final = 1 << 26
"""Longest pickle that is read, in bytes; a Stable Diffusion checkpoint's is about 0.3 MB."""

STORAGES: Final[Mapping[str, str]] = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
"""Classes of storages -> element types as the safetensors header names them."""

BARE: Final = "UntypedStorage"
"""Class of storages whose tensors name the element type themselves, since PyTorch 2.1."""

TYPES: Final[Mapping[str, str]] = {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}
"""Element types in `BARE` storages -> as the safetensors header names them."""

BROKEN: Final = (
    OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, OverflowError,
    struct.error, pickle.UnpicklingError, zipfile.BadZipFile, NotImplementedError,
)  # fmt: skip
"""Exceptions that a damaged file leads to."""

MAX_NAMES: Final = 1000
MAX_SHOWN: Final = 20
LONGEST: Final = 120
"""Of the names in a pickle: the number kept, the number shown, and the letters of one."""


class Inert:
    """Stand-in for what training programs save with the weights; takes whatever a stream does to it, and does nothing.

    It is hashable, and a container that stays empty.
    """

    def __new__(cls, *_: object, **__: object) -> Inert:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __call__(self, *_: object, **__: object) -> Inert:
        return self

    def _ignore(self, *_: object) -> None:
        pass

    __setitem__ = append = extend = add = _ignore


@dataclass(frozen=True)
class SavedStorage:
    """A storage that a stream names.

    Attributes:
        kind: its element type; empty where its tensors name it.
        key: its name in the file.
    """

    kind: str
    key: str


@dataclass(frozen=True)
class SavedTensor:
    """A tensor that a stream describes: its part of a storage, in elements.

    Attributes:
        kind: its element type, as the safetensors header names it.
    """

    storage: SavedStorage
    kind: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage: object, offset: object, shape: object, strides: object, *_: object) -> SavedTensor:
    if not isinstance(storage, SavedStorage) or not storage.kind:
        raise ValueError("a tensor without storage")
    return _tensor(storage, storage.kind, offset, shape, strides)


def _rebuild_typed_tensor(
    storage: object, offset: object, shape: object, strides: object, _: object, __: object, kind: object, *___: object
) -> SavedTensor:
    if not isinstance(storage, SavedStorage) or kind not in TYPES.values():
        raise ValueError("a tensor without storage or of an unknown type")
    return _tensor(storage, str(kind), offset, shape, strides)


def _tensor(storage: SavedStorage, kind: str, offset: object, shape: object, strides: object) -> SavedTensor:
    if not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise ValueError("a tensor without shape or strides")
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or any(not isinstance(n, int) or n < 0 for n in numbers):
        raise ValueError("a tensor with a negative or broken shape")
    return SavedTensor(storage, kind, int(offset), shape, strides)  # type: ignore[call-overload]


def _rebuild_parameter(data: object, *_: object) -> object:
    return data


def _mapping(*_: object) -> dict[object, object]:
    return {}


_NEEDED: Final[Mapping[tuple[str, str], Callable[..., object]]] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): _mapping,
    ("torch.nn.modules.container", "ParameterDict"): _mapping,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_typed_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}
"""Names that a pickle of weights needs, and the stand-ins that they get."""

_USUAL: Final = frozenset({
    # What the WebUI lets through too (modules/safe.py); nothing of it is needed.
    ("__builtin__", "set"),
    ("_codecs", "encode"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"),
    ("torch", "float32"),
})  # fmt: skip
"""Names that are nothing to speak of."""


class Refused(Exception):
    """A pickle names something that would run code.

    Args:
        names: all that it names.
    """

    def __init__(self, names: Collection[str]) -> None:
        super().__init__(f"{'a call' if len(names) == 1 else 'calls'} of {shown(names)}")


def shown(names: Collection[str]) -> str:
    """List names in order, not more than a message holds."""
    more = " and more" if len(names) > MAX_SHOWN else ""
    return ", ".join(sorted(names)[:MAX_SHOWN]) + more


_LEFT_OUT: Final = frozenset(
    code[0]
    for code in (pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, pickle.EXT1, pickle.EXT2, pickle.EXT4)
)
"""Opcodes that `torch.save` never writes: memory for bytes that are not there, and names by number."""


def _without_attributes(reader: Any) -> None:
    """Skip the opcode that sets attributes: none is needed, on an object or on what is called here."""
    reader.stack.pop()


# The Python implementation: of the one in C a number in the stream can ask for any amount of memory.
class Reader(pickle._Unpickler):
    """A stream's value, of containers, `SavedTensor`s and stand-ins.

    Attributes:
        objects: names of the classes and functions that have a stand-in, but for the usual ones.
    """

    dispatch: ClassVar[dict[int, Callable[[pickle.Unpickler], None]]] = {
        **{code: do for code, do in pickle._Unpickler.dispatch.items() if code not in _LEFT_OUT},
        pickle.BUILD[0]: _without_attributes,
    }

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="utf-8")
        self._hostile: set[str] = set()
        self.objects: set[str] = set()

    def load(self) -> Any:
        """Read the value in the stream.

        Raises:
            Refused: it names what would run code; it is followed to its end, so that all such names are known.
        """
        try:
            value = super().load()
        except BROKEN as problem:  # it may be so because of what stands for a hostile name
            if not self._hostile:
                raise
            raise Refused(self._hostile) from problem
        if self._hostile:
            raise Refused(self._hostile)
        return value

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name; nothing is imported."""
        if (module, name) in _NEEDED:
            return _NEEDED[module, name]
        if module == "torch" and (name in STORAGES or name in TYPES):
            return TYPES.get(name, name)
        if (module, name) == ("torch.storage", BARE):
            return BARE
        if (module, name) not in _USUAL:
            noted = self._hostile if is_hostile(module, name) else self.objects
            if len(noted) < MAX_NAMES:
                noted.add(printable(f"{module}.{name}"[:LONGEST]))
        return Inert

    def persistent_load(self, saved: Any) -> SavedStorage:
        """Note a storage: ("storage", class, key, device, elements), and in old files a view."""
        if not isinstance(saved, tuple) or len(saved) < 3 or saved[0] != "storage":
            raise ValueError("not a storage")
        if saved[1] != BARE and saved[1] not in STORAGES:
            raise ValueError("a storage of an unknown kind")
        return SavedStorage(STORAGES.get(saved[1], ""), str(saved[2]))


class Bounded:
    """The first bytes of a stream: a pickle that goes on is refused."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, MAX_STREAM

    def read(self, size: int = -1) -> bytes:
        """Read so many bytes.

        Raises:
            ValueError: they are not within bounds.
        """
        if not 0 <= size <= self._left:
            raise ValueError("a stream that is too long")
        self._left -= size
        return self._file.read(size)

    def readline(self) -> bytes:
        """Read to the end of a line, or of what is left."""
        line = self._file.readline(self._left)
        self._left -= len(line)
        return line
