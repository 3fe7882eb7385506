"""robosuite's Lift as a task of geo4d_ros."""
