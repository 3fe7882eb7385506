"""Measurements and faults on running nodes."""
