"""Where cameras stand, measured: from a board in the gripper, or from the gripper itself."""
