"""The table of permissions that calls require."""

from enum import StrEnum

__all__ = ["Permission", "permission_of"]


class Permission(StrEnum):
    """A permission of a token."""

    # Inference.
    INFER = "infer"
    # Read access: metadata, statistics, the index, the status page, metrics.
    READ = "read"
    # Changes of the server's state: loading, unloading, settings.
    CONTROL = "control"


OIP = "/inference.GRPCInferenceService/"
PREDICTION = "/tensorflow.serving.PredictionService/"
MODELS = "/tensorflow.serving.ModelService/"

# Methods without permission: health probes.
OPEN = (OIP + "ServerLive", OIP + "ServerReady", OIP + "ModelReady", "/grpc.health.v1.Health/")

# By prefix of a method's path; the first match counts.
TABLE = (
    *(
        (OIP + name, Permission.INFER)
        for name in ("ModelInfer", "ModelStreamInfer", "SystemSharedMemory", "CudaSharedMemory")
    ),
    *((OIP + name, Permission.CONTROL) for name in ("RepositoryModel", "LogSettings", "TraceSetting")),
    (OIP, Permission.READ),
    (PREDICTION + "GetModelMetadata", Permission.READ),
    (PREDICTION, Permission.INFER),
    (MODELS + "GetModelStatus", Permission.READ),
    ("/kerve.evaluation.v1.EvaluationService/Promote", Permission.CONTROL),
    ("/kerve.evaluation.v1.EvaluationService/ListEvaluations", Permission.READ),
    ("/kerve.evaluation.v1.EvaluationService/", Permission.INFER),
    ("/grpc.reflection.", Permission.READ),
)


def permission_of(method: str) -> Permission | None:
    """Return the permission that a method requires; None if it requires none."""
    if method.startswith(OPEN):
        return None
    # Unknown methods require the highest permission.
    return next((needed for prefix, needed in TABLE if method.startswith(prefix)), Permission.CONTROL)
