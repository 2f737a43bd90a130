"""Wine API: serves a scikit-learn wine-quality model over REST."""

__version__ = "1.0.0"
