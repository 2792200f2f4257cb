"""The protocols' messages stop here: outside there are NumPy arrays and frozen dataclasses."""
