"""Losses and metrics as separate graphs next to the model: `evaluate.onnx` and `results.onnx`.

objective.py      the loss and metrics of the model, or those given as options (identifiers.py)
  -> targets.py   the form of the labels
  -> graphs.py    Keras's test step and its results, run on symbols
     accumulation.py   sums in double precision; which states can be merged
  -> proof.py     compares both graphs with model.evaluate(), on the same rows
  -> compiling.py the whole process; errors drop a metric or the evaluation, but never fail the compile
"""
