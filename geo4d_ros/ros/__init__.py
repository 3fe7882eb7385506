"""The ROS boundary: conversions, QoS, parameters, transforms, clients; with nodes/ the only place that imports rclpy."""
