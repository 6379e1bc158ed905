"""Reads PyTorch trackers' weights: ``python experiments/import_weights.py FILE``."""

from siamrpn_jax.commands.import_weights import main

if __name__ == "__main__":
    main()
