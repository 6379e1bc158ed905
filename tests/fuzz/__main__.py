"""``python -m tests.fuzz --tries 10000``: damages all that users hand in."""

import argparse
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "helpers"), str(TESTS.parent)]


def main() -> None:
    """Prints a line a reader; ends with status 1 if any has a fault."""
    from fuzz import campaign
    from fuzz.readers import READERS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=1000, help="of each reader")
    parser.add_argument("--first", type=int, default=0, help="seed of the first try")
    parser.add_argument("readers", nargs="*", help="names; all by default")
    given = parser.parse_args()
    faults = 0
    for name in given.readers or READERS:
        found = campaign.run(READERS[name], tries=given.tries, first=given.first)
        faults += found.faults
        kinds = ("read", "refused", "crash", "silent", "hang")
        counts = ", ".join(f"{found.counts[kind]:,} {kind}" for kind in kinds)
        print(f"{name:14} {counts}", flush=True)
        for kind, (seed, _) in found.examples.items():
            print(f"    {kind} (--first {seed})", flush=True)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
