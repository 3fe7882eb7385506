"""ROS side of the simulated cell: controllers' servers and publishers."""
