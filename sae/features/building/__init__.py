"""From a dictionary and a store to a catalog: firings, evidence, contexts, cards, the map."""
