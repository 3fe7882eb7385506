"""What goes out: trajectory, gripper and MoveIt actions, the executor's loop."""
