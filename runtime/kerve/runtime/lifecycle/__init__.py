"""From folders to models that serve: states, one slot per model, the manager of all, the poller."""
