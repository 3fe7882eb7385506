"""The full-size generator: a diffusion U-Net on pointmap and RGB streams of two views (arXiv 2507.01099)."""
