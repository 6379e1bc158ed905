"""Datasets of the field into one format: a parser for each, and one writer.

Run from a clone after ``pip install -e '.[train]'``: ``python data_prep/got10k.py``. In
the order of the data flow:

- ``tracks``: what parsers yield, and what describes a dataset.
- ``got10k``, ``vid``, ``youtube_bb``, ``lasot``, ``trackingnet``, ``coco``, ``voc``,
  ``folder``, ``from_tfds``: the parsers.
- ``frames``: reading the frames that tracks refer to.
- ``shards``: one shard, a pure function of its units; each frame is read once.
- ``workers``: shards by processes of this machine; ``beam``: the same by Apache Beam.
- ``finish``: index, metadata and summary of all shards.
- ``writer``: from the plan to the end, and resuming.
- ``command``: the command line that all parsers share.
"""
