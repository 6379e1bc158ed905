"""Training data, on the host (NumPy, OpenCV, grain; no JAX).

From bottom to top:

- ``sampling``: drawing by weights, and what is held out for validation.
- ``read``: files that users have: images, sequences, stills, benchmarks, TFDS.
- ``crops``: windows of images, and prepared folders, which hold crops.
- ``scenes``: generated scenes, cut-outs and pasted clips.
- ``pairs``: training pairs from all of these, and their batches.
"""
