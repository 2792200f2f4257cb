"""Conversion between the protocols' messages and NumPy arrays and frozen dataclasses."""
