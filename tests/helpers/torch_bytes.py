"""PyTorch's file formats by hand, for tests: well-formed, broken and malicious."""

import io
import pickle
import zipfile
from typing import Any, NamedTuple

import numpy as np

STORAGES = {
    "f4": "FloatStorage",
    "f8": "DoubleStorage",
    "f2": "HalfStorage",
    "u2": "BFloat16Storage",
    "i8": "LongStorage",
    "i4": "IntStorage",
    "i2": "ShortStorage",
    "i1": "CharStorage",
    "u1": "ByteStorage",
    "b1": "BoolStorage",
}


class Global(NamedTuple):
    module: str
    name: str


class Call(NamedTuple):
    function: Global
    args: tuple[Any, ...]
    state: Any = None


class Persistent(NamedTuple):
    args: tuple[Any, ...]


class Tensor(NamedTuple):
    """A tensor over a storage, which several may share."""

    values: np.ndarray
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int = 0
    key: str | None = None
    module: str = "torch"
    function: str = "_rebuild_tensor_v2"


def contiguous(array: np.ndarray) -> Tensor:
    flat = np.ascontiguousarray(array).ravel()
    strides = [
        step // array.itemsize for step in np.empty(array.shape, array.dtype).strides
    ]
    return Tensor(flat, array.shape, tuple(strides))


class Writer:
    """Pickle of protocol 2, and the storages of its tensors."""

    def __init__(self, *, legacy: bool):
        self.legacy = legacy
        self.storages: dict[str, np.ndarray] = {}

    def dump(self, value: Any) -> bytes:
        return b"\x80\x02" + self.encode(value) + b"."

    def encode(self, value: Any) -> bytes:
        if isinstance(value, np.ndarray):
            value = contiguous(value)
        if isinstance(value, Tensor):
            return self.encode(self._tensor(value))
        if isinstance(value, Global):
            return f"c{value.module}\n{value.name}\n".encode()
        if isinstance(value, Call):
            code = self.encode(value.function) + self.encode(tuple(value.args)) + b"R"
            return (
                code if value.state is None else code + self.encode(value.state) + b"b"
            )
        if isinstance(value, Persistent):
            return self.encode(tuple(value.args)) + b"Q"
        if isinstance(value, dict):
            pairs = b"".join(self.encode(k) + self.encode(v) for k, v in value.items())
            return b"}(" + pairs + b"u"
        if isinstance(value, list):
            return b"](" + b"".join(map(self.encode, value)) + b"e"
        if isinstance(value, tuple):
            return b"(" + b"".join(map(self.encode, value)) + b"t"
        return pickle.dumps(value, 2)[2:-1]  # strings, numbers, None

    def _tensor(self, tensor: Tensor) -> Call:
        key = tensor.key or str(len(self.storages))
        self.storages[key] = tensor.values
        kind = Global(tensor.module, STORAGES[tensor.values.dtype.str[1:]])
        place: tuple[Any, ...] = ("storage", kind, key, "cpu", len(tensor.values))
        place += (None,) * self.legacy
        args = (Persistent(place), tensor.offset, tensor.size, tensor.stride)
        if tensor.function == "_rebuild_tensor_v2":
            args += (False, Call(Global("collections", "OrderedDict"), ()))
        return Call(Global("torch._utils", tensor.function), args)


def zip_bytes(
    value: Any, *, drop: str = "", folder: str = "archive", order: str = "little"
) -> bytes:
    """What ``torch.save`` writes since 1.6; ``drop``: leaves out this member."""
    writer = Writer(legacy=False)
    members = {"data.pkl": writer.dump(value), "byteorder": order.encode()}
    for key, values in writer.storages.items():
        swapped = values.astype(
            values.dtype.newbyteorder(">" if order == "big" else "<")
        )
        members[f"data/{key}"] = swapped.tobytes()
    members["version"] = b"3\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            if name != drop:
                archive.writestr(f"{folder}/{name}", data)
    return buffer.getvalue()


def legacy_bytes(value: Any) -> bytes:
    """What it wrote before."""
    writer = Writer(legacy=True)
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    header = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, system)]
    program = writer.dump(value)
    tail = [pickle.dumps(list(writer.storages), 2)]
    for values in writer.storages.values():
        tail += [len(values).to_bytes(8, "little"), values.tobytes()]
    return b"".join([*header, program, *tail])


FORMATS = {"zip": zip_bytes, "legacy": legacy_bytes}
