"""Who may call what: tokens and permissions, certificates."""
