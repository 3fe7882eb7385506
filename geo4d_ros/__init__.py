"""Closes the loop on a robot arm with a geometry-aware 4D video generator."""

__version__ = '0.1.0'
