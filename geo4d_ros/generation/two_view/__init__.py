"""The shipped CPU generator: a one-step two-view transformer with state stream, motion gate and rigid hand guide.

It has the interface of the full-size diffusion pipeline but is a deterministic regressor, named for what
it is. Why: at a CPU budget the paper's U-Net does not get there (four times fewer samples per second).
"""
