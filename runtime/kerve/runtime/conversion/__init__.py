"""Other servers' configurations to ours: `kerve convert-config`."""

from kerve.runtime.conversion.convert import Converted, convert

__all__ = ["Converted", "convert"]
