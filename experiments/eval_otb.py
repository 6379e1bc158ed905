"""One-pass evaluation: OTB, UAV123, LaSOT, GOT-10k, …; same as ``siamrpn eval``."""

from siamrpn_jax.commands.eval_ope import main

if __name__ == "__main__":
    main()
