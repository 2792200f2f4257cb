"""One file per gRPC service: decode, handle, encode. They run on every transport."""
