"""SiamRPN in JAX/Flax: train, track and evaluate a real-time object tracker.

Two levels, the same algorithm:

- ``load(...)`` gives a ``Tracker``: frames and ``ltwh`` boxes in, boxes out.
- ``init_track`` and ``track_step`` are pure and jitted, for research code.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from siamrpn_jax.api import Results as Results
    from siamrpn_jax.api import Tracker as Tracker
    from siamrpn_jax.api import load as load
    from siamrpn_jax.api import track as track
    from siamrpn_jax.inference import Prepared as Prepared
    from siamrpn_jax.inference import prepare as prepare
    from siamrpn_jax.many import Slots as Slots
    from siamrpn_jax.many import add_target as add_target
    from siamrpn_jax.many import drop_target as drop_target
    from siamrpn_jax.many import empty_slots as empty_slots
    from siamrpn_jax.many import track_many as track_many
    from siamrpn_jax.model import ModelConfig as ModelConfig
    from siamrpn_jax.model import SiamRPN as SiamRPN
    from siamrpn_jax.rpn import Template as Template
    from siamrpn_jax.tracker import Constants as Constants
    from siamrpn_jax.tracker import TrackerConfig as TrackerConfig
    from siamrpn_jax.tracker import TrackOutput as TrackOutput
    from siamrpn_jax.tracker import TrackState as TrackState
    from siamrpn_jax.tracker import init_track as init_track
    from siamrpn_jax.tracker import make_tracker as make_tracker
    from siamrpn_jax.tracker import track_clip as track_clip
    from siamrpn_jax.tracker import track_step as track_step
    from siamrpn_jax.weights import load_weights as load_weights
    from siamrpn_jax.weights import save_weights as save_weights

# Loaded on first use: who only reads files or asks for help does not wait for JAX.
_HOME_OF = {
    "Constants": "tracker",
    "ModelConfig": "model",
    "Prepared": "inference",
    "Results": "api",
    "SiamRPN": "model",
    "Slots": "many",
    "Template": "rpn",
    "TrackOutput": "tracker",
    "TrackState": "tracker",
    "Tracker": "api",
    "TrackerConfig": "tracker",
    "add_target": "many",
    "drop_target": "many",
    "empty_slots": "many",
    "init_track": "tracker",
    "load": "api",
    "load_weights": "weights",
    "make_tracker": "tracker",
    "prepare": "inference",
    "save_weights": "weights",
    "track": "api",
    "track_clip": "tracker",
    "track_many": "many",
    "track_step": "tracker",
}

__all__ = [
    "Constants",
    "ModelConfig",
    "Prepared",
    "Results",
    "SiamRPN",
    "Slots",
    "Template",
    "TrackOutput",
    "TrackState",
    "Tracker",
    "TrackerConfig",
    "__version__",
    "add_target",
    "drop_target",
    "empty_slots",
    "init_track",
    "load",
    "load_weights",
    "make_tracker",
    "prepare",
    "save_weights",
    "track",
    "track_clip",
    "track_many",
    "track_step",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'siamrpn_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"siamrpn_jax.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
