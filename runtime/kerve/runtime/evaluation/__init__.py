"""Losses and metrics of served models: equal to Keras', computed by graphs that the compiler wrote.

targets.py       labels and weights of rows: checks and conversion
accumulator.py   accumulates rows in the state of the metrics, and computes results from it
runs.py          one version over one stream: model, accumulator, time
"""
