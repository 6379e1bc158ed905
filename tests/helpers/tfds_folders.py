"""Datasets as TensorFlow Datasets lays them down, in miniature."""

import importlib
import json
import struct

import cv2
import numpy as np


def picture(level, size=(64, 48)):
    image = np.full((size[1], size[0], 3), level, np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


def write(folder, features, examples, *, kind="array_record", shards=1, split="train"):
    """A version as TFDS lays it down, its records divided among shards."""
    folder.mkdir(parents=True, exist_ok=True)
    name = folder.parent.parent.name
    records = [features.serialize_example(features.encode_example(e)) for e in examples]
    lengths = []
    for shard in range(shards):
        some = records[shard::shards]
        place = f"{shard:05d}-of-{shards:05d}"
        path = folder / f"{name}-{split}.{kind}-{place}"
        (write_tfrecord if kind == "tfrecord" else write_array_record)(path, some)
        lengths.append(str(len(some)))
    features.save_config(str(folder))
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    entry = {"name": split, "shardLengths": lengths, "filepathTemplate": template}
    info = {"fileFormat": kind, "name": name, "splits": [entry], "version": folder.name}
    (folder / "dataset_info.json").write_text(json.dumps(info))


def write_array_record(path, records):
    array_record = importlib.import_module("array_record.python.array_record_module")
    writer = array_record.ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def write_tfrecord(path, records):
    with path.open("wb") as file:
        for record in records:
            file.write(struct.pack("<QI", len(record), 0) + record + b"\0\0\0\0")
