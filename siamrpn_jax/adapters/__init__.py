"""The tracker inside annotation tools."""
