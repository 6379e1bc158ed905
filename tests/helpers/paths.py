"""Where the tests find what they need outside of themselves."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
"""Real data, on the machines that have it; tests say so where they skip."""
SHARED_DATA = SHARED / "data"
