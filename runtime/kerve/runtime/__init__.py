"""ONNX artifact in, gRPC service out; and the client to call it."""
