"""Training pairs and their batches."""
