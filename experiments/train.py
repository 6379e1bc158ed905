"""Trains a tracker: ``python experiments/train.py [PRESET] [OPTIONS]``."""

from siamrpn_jax.commands.train import main

if __name__ == "__main__":
    main()
