"""Converts the configurations of other servers: `kerve convert-config`."""

from kerve.runtime.conversion.convert import Converted, convert

__all__ = ["Converted", "convert"]
