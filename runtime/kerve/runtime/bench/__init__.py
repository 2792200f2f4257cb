"""`kerve bench`: load generation, measurement and plots."""
