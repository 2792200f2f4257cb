"""Evaluation and prediction on the nodes of a Ray cluster, which load the artifact and read the data.

    files -> parts -> worker: load once, then read, compute, accumulate (or write) each part -> merged here

cluster.py      Ray Data: distributes parts to workers, returns results in the order of the rows
located.py      a version within a repository that every node can read
evaluating.py   merges the metric states of the parts; the results equal model.evaluate()'s
predicting.py   writes a Parquet file of outputs for each part
"""
