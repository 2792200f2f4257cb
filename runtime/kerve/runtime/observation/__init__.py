"""Observability of requests: the access log and traces.

    end of a request -> observer (of the transport) -> exporter pipeline (a thread) -> exporters

The overhead per request is minimal: an observation is recorded at its end, and everything else, such as
spans, is created from observations later, in batches.
"""
