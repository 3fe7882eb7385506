"""Pictures to latents and tokens, and back."""
