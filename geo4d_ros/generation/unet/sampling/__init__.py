"""From noise to latents: noise levels, steps, the loop."""
