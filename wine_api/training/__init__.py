"""From tables of wines to a model, its scores and its card."""
