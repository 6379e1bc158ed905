"""Shows pairs as the network sees them: ``python experiments/inspect_data.py DIR``."""

from siamrpn_jax.commands.inspect_data import main

if __name__ == "__main__":
    main()
