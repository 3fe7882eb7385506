"""RGB-D cameras without ROS: RealSense by serial number, the simulated rig, recordings; one small protocol."""
