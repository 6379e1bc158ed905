"""The tracker in other runtimes."""
