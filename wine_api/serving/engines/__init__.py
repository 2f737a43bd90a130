"""How a model computes its answers."""
