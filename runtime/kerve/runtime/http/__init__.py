"""The HTTP port: OIP REST in front of the gRPC services, Prometheus metrics, a status page.

Imported only if used.
"""
