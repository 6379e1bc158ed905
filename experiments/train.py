"""Trains a tracker: ``python experiments/train.py [PRESET] [OPTIONS]``."""

from siamrpn_jax.commands.huge_pages import restart_with_huge_pages

if __name__ == "__main__":
    restart_with_huge_pages()
    from siamrpn_jax.commands.train import main

    main()
