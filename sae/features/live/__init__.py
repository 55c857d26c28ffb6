"""Questions to a catalog whose subject is loaded: sentences, phrases, pictures, contrasts."""
