"""What carries requests: the seam (`base`) and the portable transport on grpcio."""
