"""What became of each request, for whoever wants to know: the access log, traces.

    end of a request -> observer (of the transport) -> observatory (a thread) -> listeners

A request costs next to nothing on its way: it is observed where it ends, and everything else, spans included,
is made of these notes later, many at a time.
"""
