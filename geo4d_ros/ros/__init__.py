"""The ROS boundary: conversions, QoS, parameters, transforms, clients; it and nodes/ alone import rclpy."""
