"""Kinematics, timing, safety gates and the receding-horizon state machine; no ROS."""
