import io
import os
import pickle
import tarfile
import time
import zipfile

import numpy as np
import pytest
import safetensors.numpy

import torch_bytes
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.weights.torch_files import STORAGES, read_torch, write_torch
from torch_bytes import FORMATS, Call, Global, Persistent, Tensor, contiguous, zip_bytes

each_format = pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(4, 3, 2, 2)).astype(np.float32)


def read(path, data: bytes):
    path.write_bytes(data)
    return read_torch(path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


# --- What is read ---


@each_format
def test_a_state_dict(make, path):
    state = {"conv.weight": KERNEL, "steps": np.array(7), "empty": np.zeros((0, 3))}
    found = read(path, make(state))
    assert list(found) == list(state)
    for name, array in state.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
        assert not found[name].flags.writeable


@each_format
@pytest.mark.parametrize("kind", ["f2", "f8", "i8", "i4", "i2", "i1", "u1", "b1"])
def test_types(make, kind, path):
    array = np.array([[0, 1, 1], [0, 0, 1]]).astype(kind)
    found = read(path, make({"a": array}))["a"]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@each_format
def test_bfloat16_becomes_float32(make, path):
    values = np.array([1.0, -2.5, 3e38, 0.15625], np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    found = read(path, make({"a": bits}))["a"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, values, rtol=2**-8)
    assert found[1] == -2.5


def test_big_endian_files(path):
    found = read(path, zip_bytes({"a": KERNEL}, order="big"))["a"]
    np.testing.assert_array_equal(found, KERNEL)


@each_format
def test_views_of_one_storage(make, path):
    values = np.arange(24, dtype=np.float32)
    grid = values.reshape(4, 6)
    state = {
        "all": Tensor(values, (4, 6), (6, 1), key="7"),
        "turned": Tensor(values, (6, 4), (1, 6), key="7"),
        "part": Tensor(values, (2, 3), (12, 2), offset=1, key="7"),
        "repeated": Tensor(values, (3, 2), (0, 1), offset=22, key="7"),
        "gpu": Tensor(values, (24,), (1,), key="7", module="torch.cuda"),
        "old": Tensor(values, (24,), (1,), key="7", function="_rebuild_tensor"),
    }
    found = read(path, make(state))
    np.testing.assert_array_equal(found["all"], grid)
    np.testing.assert_array_equal(found["turned"], grid.T)
    np.testing.assert_array_equal(found["part"], grid[::2, 1::2])
    np.testing.assert_array_equal(found["repeated"], [[22, 23]] * 3)
    np.testing.assert_array_equal(found["old"], values)
    np.testing.assert_array_equal(found["gpu"], values)


@each_format
def test_a_training_checkpoint(make, path):
    double = Call(Global("numpy", "dtype"), ("f8", False, True), (3, "<", None))
    raw = Call(
        Global("_codecs", "encode"),
        (b"\x00\x00\x00\x00\x00\x00\xe0?".decode("latin1"), "latin1"),
    )
    scalar = Call(Global("numpy.core.multiarray", "scalar"), (double, raw))
    weight = Call(
        Global("torch._utils", "_rebuild_parameter"),
        (contiguous(KERNEL), True, Call(Global("collections", "OrderedDict"), ())),
    )
    state = Call(
        Global("collections", "OrderedDict"),
        ([["module.conv.weight", weight]],),
        {"_metadata": {"version": 1}},
    )
    saved = {
        "epoch": 20,
        "arch": "alex",
        "best": scalar,
        "state_dict": state,
        "optimizer": {
            "state": {0: {"momentum_buffer": KERNEL}},
            "param_groups": [{"lr": scalar, "params": [0], "nesterov": False}],
        },
        "device": Call(Global("torch", "device"), ("cuda", 0)),
        "size": Call(Global("torch", "Size"), ([3, 4],)),
    }
    found = read(path, make(saved))
    assert (found["epoch"], found["arch"], found["best"]) == (20, "alex", 0.5)
    assert (found["device"], found["size"]) == ("cuda:0", (3, 4))
    np.testing.assert_array_equal(found["state_dict"]["module.conv.weight"], KERNEL)
    assert not hasattr(found["state_dict"], "_metadata")
    assert found["optimizer"]["param_groups"][0]["lr"] == 0.5


# --- What is refused ---


def touch(marker) -> dict[str, object]:
    """Programs that would make the file ``marker`` if anything ran them."""
    command = f"touch {marker}"
    system = Call(Global("os", "system"), (command,))
    python = f"open({str(marker)!r}, 'w')"
    partial = Call(Global("functools", "partial"), (Global("os", "system"), command))
    return {
        "os.system": system,
        "posix.system": Call(Global("posix", "system"), (command,)),
        "nt.system": Call(Global("nt", "system"), (command,)),
        "builtins.eval": Call(Global("builtins", "eval"), (python,)),
        "__builtin__.exec": Call(Global("__builtin__", "exec"), (python,)),
        "builtins.getattr": Call(
            Global("builtins", "getattr"), (Global("os", "path"), "join")
        ),
        "subprocess.Popen": Call(Global("subprocess", "Popen"), ([str(marker)],)),
        "functools.partial": partial,
        "collections.defaultdict": Call(
            Global("collections", "defaultdict"), (Global("os", "system"),)
        ),
        "collections.namedtuple": Call(Global("collections", "namedtuple"), ("A", "b")),
        "torch.load": Call(Global("torch", "load"), (str(marker),)),
        "torch._utils._rebuild_qtensor": Call(
            Global("torch._utils", "_rebuild_qtensor"), ()
        ),
        "torch.nn.modules.conv.Conv2d": Call(
            Global("torch.nn.modules.conv", "Conv2d"), ()
        ),
        "numpy.load": Call(Global("numpy", "load"), (str(marker),)),
        "siamrpn_jax.common.files.replacing": Call(
            Global("siamrpn_jax.common.files", "replacing"), (str(marker),)
        ),
    }


@each_format
@pytest.mark.parametrize("name", touch(""))
def test_anything_but_tensors_is_refused_by_name(make, name, path, tmp_path):
    marker = tmp_path / "marker"
    evil = touch(marker)[name]
    for value in (evil, {"a": KERNEL, "b": [(1, {"c": evil})]}):
        with pytest.raises(InputError) as caught:
            read(path, make(value))
        assert f"weights.pth holds {name}" in str(caught.value)
        assert "expected tensors and plain containers" in str(caught.value)
    assert not marker.exists()


@each_format
def test_reduce_of_a_real_pickle_does_nothing(make, path, tmp_path, monkeypatch):
    marker = tmp_path / "marker"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    monkeypatch.setattr(
        torch_bytes.Writer, "dump", lambda self, value: pickle.dumps(value, 2)
    )
    with pytest.raises(InputError, match="holds posix.system|holds nt.system"):
        read(path, make({"weight": Evil()}))
    assert not marker.exists()


@each_format
def test_what_is_unknown_beside_a_state_dict_is_left_out(make, path, tmp_path):
    """Settings, samplers, and evil alike: nothing of it is imported or run."""
    marker = tmp_path / "marker"
    extras = {
        "namespace": Call(Global("argparse", "Namespace"), (), {"lr": 0.1}),
        "counter": Call(Global("collections", "Counter"), ({3: 1},)),
        "half": Global("torch", "float16"),
        **touch(marker),
    }
    found = read(path, make({"state_dict": {"w": KERNEL}, "epoch": 3, **extras}))
    assert list(found) == ["state_dict", "epoch"]
    np.testing.assert_array_equal(found["state_dict"]["w"], KERNEL)
    inside = {"state_dict": {"w": KERNEL, "x": extras["namespace"]}}
    with pytest.raises(InputError, match="holds argparse.Namespace"):
        read(path, make(inside))
    assert not marker.exists()


@pytest.mark.parametrize("end", [b"\x94}h\x3cNs.", b"Q."], ids=["key", "persistent"])
def test_nested_tuples_take_no_time(path, end):
    """Four bytes a level, and twice as many elements at each."""
    program = b"\x80\x04)" + b"".join(b"\x94h%c\x86" % n for n in range(60)) + end
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", program)
    start = time.monotonic()
    with pytest.raises(InputError, match="as a key|expected a storage|broken pickle"):
        read(path, buffer.getvalue())
    assert time.monotonic() - start < 5


def test_a_zip_that_declares_gigabytes(path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"." * 10)
        archive.writestr("archive/data/0", bytes(10**7))
    with pytest.raises(InputError, match="declares far more bytes than it holds"):
        read(path, buffer.getvalue())


def test_evil_in_the_header_of_a_legacy_file(path, tmp_path):
    marker = tmp_path / "marker"
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    writer = torch_bytes.Writer(legacy=True)
    evil = writer.dump(Call(Global("os", "system"), (f"touch {marker}",)))
    with pytest.raises(InputError, match="holds os.system"):
        read(path, magic + evil)
    assert not marker.exists()


ORDERED = Global("collections", "OrderedDict")


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(Call(ORDERED, (5,)), id="arguments"),
        pytest.param(Call(Global("torch", "FloatStorage"), ()), id="storage type"),
        pytest.param(Call(Global("torch", "Size"), (5,)), id="no sequence"),
        pytest.param(Persistent(("module", 1, 2, 3, 4)), id="module"),
        pytest.param(Persistent(("storage", "Float", "0", "cpu", 4)), id="no type"),
        pytest.param(Persistent((1,)), id="short"),
        pytest.param(
            Call(Global("numpy", "dtype"), ("O8",), (3, "|", None)), id="harmless"
        ),
        pytest.param(
            Call(
                Global("numpy.core.multiarray", "scalar"),
                (Call(Global("numpy", "dtype"), ("O",)), "12345678"),
            ),
            id="object scalar",
        ),
    ],
)
def test_calls_that_make_no_sense(program, path, request):
    if "harmless" in request.node.callspec.id:
        assert read(path, zip_bytes(program)) is not None
        return
    with pytest.raises(InputError, match="weights.pth"):
        read(path, zip_bytes(program))


def test_what_may_be_called_cannot_be_changed(path):
    """A pickle cannot leave anything behind for the next one."""
    code = torch_bytes.Writer(legacy=False).encode
    change = b"\x80\x02" + code(ORDERED) + code((None, {"items": 1})) + b"b."
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", change)
    with pytest.raises(InputError, match="changes a function"):
        read(path, buffer.getvalue())
    hidden = Call(ORDERED, (), (None, {"items": 1, "__class__": 2}))
    found = read(path, zip_bytes(hidden))
    assert dict(found.items()) == {}


# --- What is broken ---


@each_format
@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((5, 6), (6, 1), 0),
        ((4, 6), (6, 1), 1),
        ((4, 6), (7, 1), 0),
        ((2,), (2**62,), 0),
        ((2**40, 2**40), (1, 1), 0),
        ((4, 6), (-6, 1), 23),
        ((-4, 6), (6, 1), 0),
        ((1,), (1,), -1),
        ((0,), (1,), 99),
        ((4, 6), (6,), 0),
        ((4.0, 6), (6, 1), 0),
    ],
)
def test_tensors_beyond_their_storage(make, size, stride, offset, path):
    values = np.arange(24, dtype=np.float32)
    with pytest.raises(InputError, match="weights.pth has a"):
        read(path, make({"a": Tensor(values, size, stride, offset)}))


@each_format
def test_truncated_files(make, path):
    whole = make({"conv.weight": KERNEL, "bias": KERNEL[0]})
    for length in [1, 5, 30, *range(60, len(whole), 97), len(whole) - 1]:
        with pytest.raises(InputError, match="weights.pth"):
            read(path, whole[:length])


def test_a_storage_that_is_missing_or_too_short(path):
    with pytest.raises(InputError, match="lacks its member archive/data/0"):
        read(path, zip_bytes({"a": KERNEL}, drop="data/0"))
    with pytest.raises(InputError, match="zip archive without data.pkl"):
        read(path, zip_bytes({"a": KERNEL}, drop="data.pkl"))
    short = Tensor(KERNEL.ravel(), (4,), (1,), key="0")
    long = Tensor(np.zeros(3, np.float32), (3,), (1,), key="0")
    with pytest.raises(InputError, match="12 bytes in archive/data/0, expected 192"):
        read(path, zip_bytes({"a": short, "b": long}))
    with pytest.raises(InputError, match="3 elements in storage 0, expected|ends w"):
        read(path, torch_bytes.legacy_bytes({"a": short, "b": long}))


def test_damage_is_noticed(path):
    data = bytearray(zip_bytes({"a": KERNEL}))
    at = data.index(KERNEL.tobytes())
    data[at + 5] ^= 1
    with pytest.raises(InputError, match="unreadable member archive/data/0: Bad CRC"):
        read(path, bytes(data))


def html() -> bytes:
    return b"\n<!DOCTYPE html><html>Quota exceeded</html>"


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=KERNEL)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (html(), "a web page: the download went wrong"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (safetensors.numpy.save({"a": KERNEL}), "a safetensors file"),
        (b"\x08\x06\x12\x07pytorch\x1a\x031.7:", "an ONNX model"),
        (tar(), "a tar archive"),
        (npz(), "a zip archive without data.pkl"),
        (b"\x1f\x8b\x08" + bytes(20), "compressed with gzip"),
        (b"MATLAB 5.0 MAT-file", "a MATLAB file"),
        (pickle.dumps({"a": 1}), "a pickle, but none of PyTorch's"),
        (b"\x00\x01\x02" * 200, "of an unknown kind"),
    ],
)
def test_foreign_files(data, kind, path):
    with pytest.raises(InputError, match=f"weights.pth is {kind}"):
        read(path, data)


def test_a_missing_file(path):
    with pytest.raises(FileNotFoundError, match="weights.pth"):
        read_torch(path)


# --- Writing ---


def test_what_is_written_is_read(path):
    tensors = {
        "conv.weight": KERNEL,
        "turned": KERNEL.T,
        "half": KERNEL.astype(np.float16),
        "steps": np.array(7),
        "empty": np.zeros((0, 3), np.float64),
        "flags": np.array([True, False]),
    }
    write_torch(path, tensors)
    found = read_torch(path)
    assert list(found) == list(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
    before = path.read_bytes()
    write_torch(path, tensors)
    assert path.read_bytes() == before


def test_types_that_are_not_written(path):
    with pytest.raises(InputError, match="a is complex64, expected one of <f4"):
        write_torch(path, {"a": np.zeros(3, np.complex64)})
    assert not path.exists()
    assert "BFloat16Storage" in STORAGES
