"""Stateful sequences: what the server keeps for clients between the requests of one sequence."""
