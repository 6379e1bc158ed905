"""SiamRPN in JAX/Flax: train, track and evaluate a real-time object tracker."""

__version__ = "0.1.0"
