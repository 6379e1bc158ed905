"""The network (paper, section 3)."""
