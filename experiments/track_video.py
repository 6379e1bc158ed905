"""Tracks through a film; the same as ``siamrpn track``."""

from siamrpn_jax.commands.track import main

if __name__ == "__main__":
    main()
