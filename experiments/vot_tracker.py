"""The tracker as the VOT toolkit starts it, see trackers.ini."""

from siamrpn_jax.commands.vot_tracker import main

if __name__ == "__main__":
    main()
