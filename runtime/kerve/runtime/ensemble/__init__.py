"""Chains of models that are served as one: Triton's `ensemble_scheduling`.

configuration -> scheme (what the steps give one another) -> binding (held against the members) -> executor
"""
