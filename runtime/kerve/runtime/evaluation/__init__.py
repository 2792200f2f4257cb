"""Losses and metrics where the model is served: Keras's own numbers, from the graphs that the compiler wrote.

targets.py       labelled rows: what fits, and what is said of what does not
accumulator.py   rows folded into the state of the metrics, and the state as numbers
runs.py          one version over one stream: model, accumulator, time
"""
