"""Finds a tracker's constants: ``python experiments/tune.py --data DIR [OPTIONS]``."""

from siamrpn_jax.commands.tune import main

if __name__ == "__main__":
    main()
