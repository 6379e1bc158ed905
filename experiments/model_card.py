"""Pictures for a model card: the same as ``siamrpn card``; options with ``--help``."""

from siamrpn_jax.commands.card import main

if __name__ == "__main__":
    main()
