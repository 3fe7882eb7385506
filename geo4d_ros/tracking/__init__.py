"""Reads the gripper's path and opening off a 4D video."""
