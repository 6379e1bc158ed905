"""End-to-end training (paper, sections 3.3 and 5)."""
