"""Our variants beside PyTorch, ONNX Runtime and OpenCV, on the same weights.

``timing`` is how contestants take turns, ``session`` how they are checked before and
noted after, ``report`` what is printed and written; ``cases`` holds networks and
inputs. ``torch_models``, ``torch_tracker``, ``torch_training`` and ``onnx_models`` are
the others' side. Each of ``track``, ``train``, ``many``, ``conv`` and ``data`` is a
section of the benchmark.
"""
