"""Exports a tracker for other runtimes: ``python experiments/export.py [OPTIONS]``."""

from siamrpn_jax.commands.export import main

if __name__ == "__main__":
    main()
