"""The closed loop: state machine, events, recovery and its record; no ROS."""
