"""What is known of a robot: kinematics, gripper geometry, meshes, limits."""
