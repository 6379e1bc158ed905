"""The VOT challenge's experiments and figures."""
