"""What is measured of a latent beside where it fires; each module makes one section of a card."""
