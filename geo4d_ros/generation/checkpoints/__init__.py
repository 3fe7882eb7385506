"""Converters of public weights into this package's checkpoints."""
