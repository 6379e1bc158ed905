"""VOT's experiments and figures; the same as ``siamrpn eval-vot``."""

from siamrpn_jax.commands.eval_vot import main

if __name__ == "__main__":
    main()
