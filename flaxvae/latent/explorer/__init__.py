"""The latent space of a run as one HTML file with a decoder that runs in it."""
