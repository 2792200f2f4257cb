"""Model lifecycle: version states, one slot per model, the manager of all models, the repository poller."""
