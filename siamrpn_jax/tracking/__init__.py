"""One-shot tracking (paper, section 4)."""
