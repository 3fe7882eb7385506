"""Cameras, pointmaps and rigid transforms; numpy and scipy only."""
