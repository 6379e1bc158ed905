"""Exports a tracker as StableHLO: ``python experiments/export.py [OPTIONS]``."""

from siamrpn_jax.commands.export import main

if __name__ == "__main__":
    main()
