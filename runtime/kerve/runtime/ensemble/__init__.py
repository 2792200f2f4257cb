"""Chains of models that are served as one: Triton's `ensemble_scheduling`.

configuration -> scheme (tensors between the steps) -> binding (checked against the members) -> executor
"""
