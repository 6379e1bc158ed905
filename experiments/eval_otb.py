"""One-pass evaluation on a folder of sequences; the same as ``siamrpn eval``."""

from siamrpn_jax.commands.eval_otb import main

if __name__ == "__main__":
    main()
