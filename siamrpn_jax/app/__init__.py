"""A page to label films on this machine: its server, and what the browser shows."""
