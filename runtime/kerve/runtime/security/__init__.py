"""Access control: tokens and permissions, TLS certificates."""
