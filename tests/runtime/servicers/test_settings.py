"""LogSettings through Triton's client."""

from typing import Any

import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException


def test_log_settings_are_read_and_changed_all_or_none(server: Any) -> None:
    with triton.InferenceServerClient(server.address) as client:
        settings = client.get_log_settings().settings
        assert settings["log_info"].bool_param
        assert settings["log_format"].string_param == "default"
        changed = client.update_log_settings({"log_verbose_level": 1, "log_format": "ISO8601"}).settings
        assert changed["log_verbose_level"].uint32_param == 1
        with pytest.raises(InferenceServerException, match="unknown log setting 'log_foo'"):
            client.update_log_settings({"log_info": False, "log_foo": True})
        with pytest.raises(InferenceServerException, match="log_format: expected one of"):
            client.update_log_settings({"log_info": False, "log_format": "xml"})
        settings = client.update_log_settings({"log_verbose_level": 0, "log_format": "default"}).settings
        assert settings["log_info"].bool_param
