"""`geo4d cameras`: look at RGB-D cameras and record them, without ROS."""
