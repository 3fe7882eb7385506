"""The simulated cell: MuJoCo scene, tasks, scripted expert, cameras, depth noise."""
