"""Losses and metrics as graphs beside the model: `evaluate.onnx` and `results.onnx`.

objective.py      what the model was compiled with, or what the options say (identifiers.py)
  -> targets.py   what the labels look like
  -> graphs.py    Keras's test step and its results, run on symbols
     accumulation.py   sums in double precision; which states can be merged
  -> proof.py     both graphs against model.evaluate(), on the same rows
  -> compiling.py the whole of it; what fails costs the evaluation, or one metric, never the model
"""
