"""TensorFlow Serving's list of models to serve."""

from pathlib import Path

from kerve.inference import model_config_pb2
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.lifecycle.manager import DesiredModel
from kerve.tensorflow_serving.apis import model_management_pb2
from kerve.tensorflow_serving.config import model_server_config_pb2

__all__ = ["decode_models"]


def decode_models(message: model_management_pb2.ReloadConfigRequest) -> list[DesiredModel]:
    """Return the models that a request lists; raises InvalidArgumentError if the list is invalid."""
    # An empty list is valid and unloads everything; a missing list is an error, as in TensorFlow Serving.
    if (given := message.config.WhichOneof("config")) != "model_config_list":
        raise InvalidArgumentError(f"config: expected model_config_list, got {given or 'nothing'}")
    models = [desired_model(each) for each in message.config.model_config_list.config]
    names = [model.name for model in models]
    for position, name in enumerate(names):
        if not name or name in names[:position]:
            raise InvalidArgumentError(f"config: expected a name for each model, each once, got {name!r}")
    return models


def desired_model(message: model_server_config_pb2.ModelConfig) -> DesiredModel:
    """Return one model that a request lists."""
    policy = model_config_pb2.ModelVersionPolicy()
    given = message.model_version_policy
    match given.WhichOneof("policy_choice"):
        case "latest":
            policy.latest.num_versions = given.latest.num_versions or 1
        case "all":
            policy.all.SetInParent()
        case "specific":
            policy.specific.versions.extend(given.specific.versions)
        case _:
            policy.latest.num_versions = 1
    return DesiredModel(
        message.name,
        Path(message.base_path) if message.base_path else None,
        policy,
        dict(message.version_labels),
    )
