"""Video diffusion models that the 4D generator can stand on."""
