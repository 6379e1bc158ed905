"""ArrayRecord files of ``tf.train`` examples, read without TensorFlow."""

from pathlib import Path
from typing import Any

from siamrpn_jax.common.errors import require

_EXTRA = "train"


def open_array_record(path: Path) -> Any:
    """Opens a reader of one file: ``num_records()``, and ``read([i])`` gives a list."""
    module = require("array_record.python.array_record_module", extra=_EXTRA)
    # Without reading ahead: records are read at random.
    return module.ArrayRecordReader(
        str(path), options="readahead_buffer_size:0", file_reader_buffer_size=32768
    )


def example_type() -> Any:
    """The protobuf message ``tf.train.Example``."""
    return require("tensorflow_datasets.proto", extra=_EXTRA).tf_example_pb2.Example


def decode_error() -> type[Exception]:
    """What parsing bytes that are no example raises."""
    return require("google.protobuf.message", extra=_EXTRA).DecodeError
