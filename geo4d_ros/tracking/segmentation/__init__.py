"""Gripper masks and landmarks in pictures."""
