"""SiamRPN in JAX/Flax: train, track and evaluate a real-time object tracker.

Two levels, the same algorithm:

- ``load(...)`` gives a ``Tracker``: frames and ``ltwh`` boxes in, boxes out.
- ``init_track`` and ``track_step`` are pure and jitted, for research code.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.5.0"

if TYPE_CHECKING:
    from siamrpn_jax.api import Results as Results
    from siamrpn_jax.api import Tracker as Tracker
    from siamrpn_jax.api import load as load
    from siamrpn_jax.api import track as track
    from siamrpn_jax.labelling.session import Session as Session
    from siamrpn_jax.model.config import ModelConfig as ModelConfig
    from siamrpn_jax.model.fused import FusedWeights as FusedWeights
    from siamrpn_jax.model.fused import fuse as fuse
    from siamrpn_jax.model.network import SiamRPN as SiamRPN
    from siamrpn_jax.model.rpn import Template as Template
    from siamrpn_jax.tracking.config import TrackerConfig as TrackerConfig
    from siamrpn_jax.tracking.slots import Slots as Slots
    from siamrpn_jax.tracking.slots import add_target as add_target
    from siamrpn_jax.tracking.slots import drop_target as drop_target
    from siamrpn_jax.tracking.slots import empty_slots as empty_slots
    from siamrpn_jax.tracking.slots import track_many as track_many
    from siamrpn_jax.tracking.state import TrackOutput as TrackOutput
    from siamrpn_jax.tracking.state import TrackState as TrackState
    from siamrpn_jax.tracking.step import init_track as init_track
    from siamrpn_jax.tracking.step import make_tracker as make_tracker
    from siamrpn_jax.tracking.step import track_clip as track_clip
    from siamrpn_jax.tracking.step import track_step as track_step
    from siamrpn_jax.weights import load_weights as load_weights
    from siamrpn_jax.weights import save_weights as save_weights

# Loaded on first use: who only reads files or asks for help does not wait for JAX.
_NAMES_IN = {
    "api": ("Results", "Tracker", "load", "track"),
    "labelling.session": ("Session",),
    "model.fused": ("FusedWeights", "fuse"),
    "model.config": ("ModelConfig",),
    "model.network": ("SiamRPN",),
    "model.rpn": ("Template",),
    # Not from its config module: here it is registered as a pytree.
    "tracking.state": ("TrackOutput", "TrackState", "TrackerConfig"),
    "tracking.slots": (
        "Slots",
        "add_target",
        "drop_target",
        "empty_slots",
        "track_many",
    ),
    "tracking.step": (
        "init_track",
        "make_tracker",
        "track_clip",
        "track_step",
    ),
    "weights": ("load_weights", "save_weights"),
}
_HOME_OF = {name: home for home, names in _NAMES_IN.items() for name in names}

__all__ = sorted([*_HOME_OF, "__version__"])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'siamrpn_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"siamrpn_jax.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
