"""Take a trained network apart into features a person can understand."""

__version__ = "0.1.0"
