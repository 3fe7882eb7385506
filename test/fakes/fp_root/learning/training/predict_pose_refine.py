"""Stands in for the refiner's module."""


class PoseRefinePredictor:
    pass
