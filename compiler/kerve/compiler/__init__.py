"""Keras artifact in, verified ONNX artifact out."""
