"""Model configuration: reads, checks and completes `config.toml` and Triton's `config.pbtxt`."""

from kerve.runtime.config.reader import SettingsReader
from kerve.runtime.config.settings import Settings, is_label, read_settings

__all__ = ["Settings", "SettingsReader", "is_label", "read_settings"]
