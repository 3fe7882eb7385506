"""The generator: autoencoders, U-Nets, the small preset, pipelines and checkpoints (torch, diffusers)."""
