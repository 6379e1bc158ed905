"""Labelling films: boxes drawn on some frames, tracked through all others."""
