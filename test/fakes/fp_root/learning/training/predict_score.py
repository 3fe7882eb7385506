"""Stands in for the scorer's module."""


class ScorePredictor:
    pass
