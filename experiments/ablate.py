"""The paper's studies: ``python experiments/ablate.py anchors [OPTIONS]``."""

from siamrpn_jax.commands.ablate import main

if __name__ == "__main__":
    main()
