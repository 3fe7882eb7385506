"""What the U-Net adds to Stable Video Diffusion's layers."""
