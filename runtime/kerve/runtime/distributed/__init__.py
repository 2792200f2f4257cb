"""Evaluation and prediction where the data is: on the nodes of a Ray cluster, by the artifact itself.

    files -> parts -> worker: load once, then read, compute, fold (or write) each part -> merged here

cluster.py      Ray Data: parts to workers, and what they found in the order of the rows
located.py      a version within a repository that every node sees
evaluating.py   the states of metrics, part by part, become one; the numbers are model.evaluate()'s
predicting.py   a Parquet file of outputs for each part
"""
