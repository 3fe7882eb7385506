"""The four ROS nodes; each converts, calls the library and publishes."""
