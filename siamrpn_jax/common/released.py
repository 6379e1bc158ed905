"""The weights that come with the package, by name."""

WEIGHTS = ("base", "small")
"""All of them: ``base`` follows better, ``small`` takes less than half of its time."""

DEFAULT_WEIGHTS = "base"
"""What is taken where no weights are named."""
