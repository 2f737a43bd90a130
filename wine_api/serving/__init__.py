"""Serving a model: everything between the store and the answer. Knows nothing of HTTP."""
