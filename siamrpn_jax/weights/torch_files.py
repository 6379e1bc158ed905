"""PyTorch's files without PyTorch: tensors as NumPy arrays, and back.

Two formats hold a pickle whose tensors are calls of ``torch._utils``' functions on
storages: a zip archive (PyTorch 1.6 and later), and one file of several pickles with
the raw storages behind them (0.1.10 and later). A pickle is a program. Here it can do
nothing but make the tensors and plain containers of ``_GLOBALS``: whatever else it
names is never imported. It becomes an inert stub, which is left out where it lies
beside a sound table of tensors (settings beside a ``state_dict``), and else refused.
"""

import io
import math
import operator
import pickle
import reprlib
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.files import replacing


def read_torch(path: str | Path) -> Any:
    """Reads what ``torch.save`` wrote.

    Args:
        path: of the file, zip or legacy format.

    Returns:
        the saved object: tensors as read-only arrays, bfloat16 as float32; dicts,
        lists, tuples, sets, strings, numbers and None as they are. Entries of the
        outermost dict that hold anything else are left out beside a table of tensors.

    Raises:
        InputError: naming the file, what is wrong with it, and what was expected.
    """
    path = Path(path)
    head = _head(path)
    try:
        if head[:4] == _ZIP:
            return _without_stubs(_read_zip(path))
        if head[:1] == b"\x80" and _LEGACY_MAGIC in head[:16]:
            return _without_stubs(_read_legacy(path.read_bytes()))
    except _Broken as error:
        raise InputError(f"{path} {error}") from None
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise InputError(f"{path} is a broken zip archive: {error}") from None
    raise InputError(
        f"{path} is {_describe(head)}; expected a file that torch.save wrote"
    )


def write_torch(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors so that ``torch.load(path, weights_only=True)`` reads them.

    Args:
        path: where to; whole or not at all.
        tensors: by name; of the types in ``STORAGES``.

    Raises:
        InputError: an array of another type.
    """
    names = {dtype: name for name, dtype in STORAGES.items() if name not in _WIDENED}
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    wrong = [name for name, array in arrays.items() if array.dtype.str not in names]
    if wrong:
        raise InputError(
            f"{path}: {wrong[0]} is {arrays[wrong[0]].dtype}, expected one of "
            f"{', '.join(names)}"
        )
    items = [
        _text(name) + _tensor(str(i), names[array.dtype.str], array.shape)
        for i, (name, array) in enumerate(arrays.items())
    ]
    program = b"\x80\x02" + _EMPTY_DICT + b"(" + b"".join(items) + b"u."
    members = {"data.pkl": program, "byteorder": b"little", "version": b"3\n"}
    for i, array in enumerate(arrays.values()):
        members[f"data/{i}"] = array.tobytes()
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, data in members.items():
            # A fixed date: equal weights give equal files.
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), data)


STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}
"""NumPy's type for each of PyTorch's; bfloat16, which NumPy lacks, as its bits."""

_MAX_RATIO = 20
"""How far the members of a zip archive may be compressed; PyTorch does not compress."""

_MAX_REPEAT = 10_000
"""How often a tensor may show the elements of its storage."""

_HASHABLE = (str, bytes, int, float, bool, type(None))
"""What keys of dicts and elements of sets may be, alone or as a tuple."""

_WIDENED = ("BFloat16Storage",)
"""Types that become float32."""

_ZIP = b"PK\x03\x04"

_LEGACY_MAGIC = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""The number 0x1950a86a20f9469cfc6c, which the first pickle of a legacy file holds."""

_FOREIGN = (
    (b"<", "a web page: the download went wrong"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself"),
    (b"\x89HDF", "an HDF5 file"),
    (b"MATLAB", "a MATLAB file"),
    (b"\x93NUMPY", "a NumPy file"),
    (b"\x1f\x8b", "compressed with gzip: unpack it first"),
    (b"\x80", "a pickle, but none of PyTorch's"),
)
"""First bytes of files that people take for PyTorch's."""


class _Broken(Exception):
    """What is wrong; the file's name comes before it."""


Opener = Callable[[str, np.dtype, int], np.ndarray]
"""Key, type and number of elements of a storage, to its elements."""


def _head(path: str | Path) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(512)


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        if sum(sizes.values()) > _MAX_RATIO * path.stat().st_size:
            raise _Broken("declares far more bytes than it holds: not by torch.save")
        programs = [name for name in sizes if f"/{name}".endswith("/data.pkl")]
        if len(programs) != 1:
            raise _Broken(
                "is a zip archive without data.pkl: not written by torch.save"
            )
        folder = programs[0].removesuffix("data.pkl")
        order = _read_member(archive, f"{folder}byteorder", sizes, default=b"little")

        def open_storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
            name = f"{folder}data/{key}"
            expected = count * dtype.itemsize
            if sizes.get(name, expected) != expected:
                raise _Broken(f"has {sizes[name]} bytes in {name}, expected {expected}")
            data = _read_member(archive, name, sizes)
            swapped = dtype.newbyteorder(">" if order == b"big" else "<")
            return np.frombuffer(data, swapped)

        program = io.BytesIO(_read_member(archive, programs[0], sizes))
        return _unpickle(program, open_storage)


def _read_member(
    archive: zipfile.ZipFile,
    name: str,
    sizes: Mapping[str, int],
    *,
    default: bytes | None = None,
) -> bytes:
    if name not in sizes:
        if default is None:
            raise _Broken(f"lacks its member {name}: the file is incomplete")
        return default
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError) as error:
        raise _Broken(f"has an unreadable member {name}: {error}") from None


def _read_legacy(data: bytes) -> Any:
    """Storages follow the pickle that uses them, so it is run twice."""
    file = io.BytesIO(data)
    for _ in ("magic number", "protocol version", "system"):
        _without_stubs(_unpickle(file, _no_storage))
    start, declared = file.tell(), {}

    def declare(key: str, dtype: np.dtype, count: int) -> np.ndarray:
        if count * dtype.itemsize > len(data):
            raise _Broken(f"ends before its storage {key} of {count} elements")
        declared[key] = dtype, count
        return np.broadcast_to(np.zeros((), dtype), count)

    _unpickle(file, declare)
    keys = _unpickle(file, _no_storage)
    if not isinstance(keys, list) or {str(key) for key in keys} != set(declared):
        raise _Broken("lists other storages than its tensors use")
    storages, position = {}, file.tell()
    for key in map(str, keys):
        dtype, count = declared[key]
        found = int.from_bytes(data[position : position + 8], "little", signed=True)
        end = position + 8 + count * dtype.itemsize
        if end > len(data):
            raise _Broken(f"ends within its storage {key}: the file is truncated")
        if found != count:
            raise _Broken(f"has {found} elements in storage {key}, expected {count}")
        storages[key] = np.frombuffer(data[position + 8 : end], dtype)
        position = end
    file.seek(start)
    return _unpickle(file, lambda key, dtype, count: storages[key])


def _no_storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
    raise _Broken(f"has a tensor, storage {key}, in its header")


def _describe(head: bytes) -> str:
    """What a file that is not PyTorch's seems to be."""
    if not head:
        return "empty"
    for magic, text in _FOREIGN:
        if head.lstrip()[: len(magic)] == magic:
            return text
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it first; PyTorch 0.1's own: save it anew there"
    if head[8:10] == b'{"':
        return "a safetensors file, which needs no import"
    if head[:1] == b"\x08" and (b"onnx" in head.lower() or b"pytorch" in head):
        return "an ONNX model"
    return "of an unknown kind"


# --- The restricted pickle machine ---


def _unpickle(file: io.BytesIO, open_storage: Opener) -> Any:
    try:
        return _Unpickler(file, open_storage).load()
    except _Broken:
        raise
    except EOFError:
        raise _Broken("ends within its pickle: the file is truncated") from None
    except Exception as error:  # pickle promises no particular ones
        raise _Broken(f"has a broken pickle: {str(error)[:200]}") from None


def _without_stubs(saved: Any) -> Any:
    """What was saved, without entries that are unknown beside a table of tensors."""
    name = _find_stub(saved)
    if name is None:
        return saved
    if isinstance(saved, dict):
        kept = {k: v for k, v in saved.items() if _find_stub(v) is None}
        if any(_is_table(value) for value in kept.values()):
            return kept
    raise _Broken(
        f"holds {name}, which is not loaded: expected tensors and plain containers "
        "alone, such as a state_dict"
    )


def _is_table(value: Any) -> bool:
    tensors = value.values() if isinstance(value, dict) else ()
    return any(isinstance(tensor, np.ndarray) for tensor in tensors)


def _find_stub(value: Any) -> str | None:
    """The name of something unknown in a value, if there is any; each part once."""
    seen, rest = set(), [value]
    while rest:
        one = rest.pop()
        kind = one if isinstance(one, type) else type(one)
        if issubclass(kind, _Stub):
            return kind.named
        if id(one) not in seen and isinstance(one, dict | list | tuple | set):
            seen.add(id(one))
            rest += [*one, *one.values()] if isinstance(one, dict) else one
    return None


class _Stub:
    """Stands for something unknown: nothing that a pickle does to it does anything."""

    named = ""

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Makes a stub, whatever it is called with."""
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any):
        pass

    def _ignore(self, *_: Any) -> None:
        pass

    __setstate__ = append = extend = add = update = __setitem__ = _ignore


def _stub(name: str) -> type[_Stub]:
    return type("_Stub", (_Stub,), {"named": name[:200]})


_PythonUnpickler: Any = vars(pickle)["_Unpickler"]


class _Unpickler(_PythonUnpickler):
    """In Python: each key is looked at before it is hashed, see ``_check_keys``."""

    dispatch = dict(_PythonUnpickler.dispatch)

    def __init__(self, file: io.BytesIO, open_storage: Opener):
        super().__init__(file, encoding="latin1")
        self._open_storage = open_storage
        self._storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.cuda") and name in STORAGES:
            return _Storage(name)
        function = _GLOBALS.get((module, name))
        if function is None:
            return _stub(f"{module}.{name}")
        return _Function(function)

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, storage, key, _, count, *view = pid
        if kind != "storage" or not isinstance(storage, _Storage) or any(view):
            raise _Broken(f"refers to {reprlib.repr(pid)}, expected a storage")
        key, count = str(key), operator.index(count)
        if key not in self._storages:
            values = self._open_storage(key, np.dtype(STORAGES[storage.name]), count)
            if storage.name in _WIDENED:
                values = (values.astype(np.uint32) << 16).view(np.float32)
            self._storages[key] = values
        return self._storages[key]


_HASHING: dict[bytes, Callable[[list[Any]], list[Any]]] = {
    pickle.SETITEM: lambda stack: stack[-2:-1],
    pickle.SETITEMS: lambda stack: stack[::2],
    pickle.DICT: lambda stack: stack[::2],
    pickle.ADDITEMS: lambda stack: stack,
    pickle.FROZENSET: lambda stack: stack,
}
"""The operations of a pickle that hash something, and where that is on its stack."""


def _check_keys(keys: Iterable[Any]) -> None:
    """A pickle of a kilobyte can make nested tuples whose hash takes hours."""
    for key in keys:
        parts = key if isinstance(key, tuple) else (key,)
        if not all(isinstance(part, _HASHABLE) for part in parts):
            raise _Broken(f"has {reprlib.repr(key)} as a key, expected text")


def _checking_keys(operation: bytes) -> Callable[[Any], None]:
    original = _PythonUnpickler.dispatch[operation[0]]

    def load(unpickler: Any) -> None:
        _check_keys(_HASHING[operation](unpickler.stack))
        original(unpickler)

    return load


for _operation in _HASHING:
    _Unpickler.dispatch[_operation[0]] = _checking_keys(_operation)


class _Storage:
    """One of PyTorch's storage types; only its name matters."""

    def __init__(self, name: str):
        self.name = name


class _Function:
    """Something that a pickle may call, and nothing else can be done with it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise _Broken("changes a function")


class _Dict(dict):
    """An ``OrderedDict`` without the attributes that a pickle may give it."""

    def __setstate__(self, state: Any) -> None:
        """Drops ``state_dict``'s version numbers."""


class _NumpyType:
    """A NumPy type while a pickle builds it."""

    def __init__(self, code: str, *_: Any):
        self.code = code

    def __setstate__(self, state: Any) -> None:
        """Drops everything but the byte order."""
        self.code = f"{'>' if state[1] == '>' else '<'}{self.code}"


def _rebuild_tensor(
    storage: np.ndarray, offset: int, size: Any, stride: Any, *_: Any
) -> np.ndarray:
    """A view of a storage, after checking that it stays inside."""
    size, stride = (tuple(map(operator.index, values)) for values in (size, stride))
    numbers = (offset, *size, *stride)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    inside = 0 in size or last < len(storage)
    if inside and math.prod(size) > _MAX_REPEAT * max(len(storage), 1):
        raise _Broken(
            f"has a tensor of size {reprlib.repr(size)} on a storage of {len(storage)} "
            "elements: repeated too often"
        )
    if min(numbers) < 0 or offset > len(storage) or not inside:
        raise _Broken(
            f"has a tensor of size {size}, stride {stride} and offset {offset}, which "
            f"does not fit its storage of {len(storage)} elements"
        )
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(
        storage[offset:], size, steps, writeable=False
    )


def _rebuild_parameter(data: np.ndarray, *_: Any) -> np.ndarray:
    return data


def _rebuild_scalar(kind: _NumpyType, data: bytes) -> Any:
    dtype = np.dtype(kind.code)
    if dtype.kind not in "biuf":
        return _stub(f"a NumPy scalar of type {kind.code}")()
    if len(data) != dtype.itemsize:
        raise _Broken(f"has a NumPy scalar of type {kind.code}, expected a number")
    return np.frombuffer(data, dtype)[0]


def _make_set(elements: Any) -> set[Any]:
    _check_keys(elements)
    return set(elements)


def _make_device(*parts: Any) -> str:
    if not all(isinstance(part, str | int) for part in parts):
        raise _Broken("has a device that is no text")
    return ":".join(map(str, parts))


def _encode(text: str, *_: Any) -> bytes:
    return text.encode("latin1")  # how old protocols spell bytes


_GLOBALS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _Dict,
    ("builtins", "set"): _make_set,
    ("__builtin__", "set"): _make_set,
    ("torch", "Size"): tuple,
    ("torch", "device"): _make_device,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("numpy", "dtype"): _NumpyType,
    ("numpy.core.multiarray", "scalar"): _rebuild_scalar,
    ("numpy._core.multiarray", "scalar"): _rebuild_scalar,
    ("_codecs", "encode"): _encode,
}
"""All that a pickle may call: module and name in the file, and what is done instead."""


# --- Writing a pickle, protocol 2, by its operations ---


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def _integer(value: int) -> bytes:
    return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)


def _tuple(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _call(function: bytes, *args: bytes) -> bytes:
    return function + _tuple(*args) + b"R"


_EMPTY_DICT = _call(_global("collections", "OrderedDict"))


def _tensor(key: str, storage: str, shape: tuple[int, ...]) -> bytes:
    """The call that makes a contiguous tensor of a storage of its own."""
    count = _integer(math.prod(shape))
    place = (_text("storage"), _global("torch", storage), _text(key), _text("cpu"))
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    return _call(
        _global("torch._utils", "_rebuild_tensor_v2"),
        _tuple(*place, count) + b"Q",  # the storage with this persistent id
        _integer(0),
        _tuple(*map(_integer, shape)),
        _tuple(*map(_integer, strides)),
        b"\x89",  # False: requires no gradient
        _EMPTY_DICT,  # no hooks
    )
