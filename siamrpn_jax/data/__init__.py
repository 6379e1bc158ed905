"""Training data and images, host side only (NumPy, OpenCV, grain; no JAX).

In the order of the data flow:

- `images`: reading image files, checking frames.
- `sequences`: annotated sequences on disk.
- `stills`: annotated still images on disk.
- `store`: image files by number, cached.
- `pool`: everything found below the user's folders, and its weights.
- `drawing`: painting inside outlines.
- `synthetic`: generated sequences, no files needed.
- `augment`: how far pairs are varied; windows and crops.
- `photometry`: colours and sharpness.
- `views`: what a patch will show, rendered here or sent to the device.
- `records`: prepared folders, a record for each frame of each track.
- `prepared`: which of their records make pairs.
- `composites`: pairs of pasted objects.
- `clips`: clips of held-out data, to choose a tracker's constants on.
- `tfds_files`: files of datasets that TensorFlow Datasets has prepared.
- `labelled`: images with one class each, to pretrain a backbone.
- `pairs`: the mixture of all sources, a pair for each index.
- `loader`: batches, by threads or worker processes.
"""
