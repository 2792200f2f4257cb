"""One file per gRPC service: decode, handle, encode. Every transport hosts them."""
