"""One-pass evaluation."""
