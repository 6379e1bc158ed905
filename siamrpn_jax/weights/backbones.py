"""Backbones to start training from, whatever file they are in."""

from pathlib import Path

from siamrpn_jax.tracking.state import Loaded
from siamrpn_jax.weights import LoadedBackbone, find, read_file
from siamrpn_jax.weights.torch_layouts import import_torch


def load_backbone(source: str | Path) -> LoadedBackbone:
    """Loads a backbone.

    Args:
        source: a backbone's ``.safetensors`` file; weights of a whole tracker (name,
            file, or folder of a training run), whose backbone is taken; or, with any
            other suffix, a PyTorch file of a layout that ``torch_layouts`` knows.

    Returns:
        its config, the input that it wants, and its variables, named as in a tracker.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: a file that cannot be read as any of these.
    """
    path = find(source)
    ours = path.suffix == ".safetensors"
    loaded = read_file(path) if ours else import_torch(path)[1]
    return _backbone_of(loaded) if isinstance(loaded, Loaded) else loaded


def _backbone_of(loaded: Loaded) -> LoadedBackbone:
    """The backbone of a tracker."""
    config = loaded.model.config
    alone = {k: {"backbone": v["backbone"]} for k, v in loaded.variables.items()}
    return LoadedBackbone(config.backbone, config.input, alone, loaded.card)
