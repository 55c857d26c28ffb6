"""What drives a latent and what it drives: first-order effects, borne out by ablation, as a graph."""
