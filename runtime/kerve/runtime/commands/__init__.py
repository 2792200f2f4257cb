"""The runtime's subcommands of `kerve`."""
