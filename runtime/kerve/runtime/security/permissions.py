"""Which permission a call needs, in one table."""

from enum import StrEnum

__all__ = ["Permission", "permission_of"]


class Permission(StrEnum):
    """What a token may allow."""

    # To send tensors and get answers.
    INFER = "infer"
    # To look: descriptions, statistics, the index, the status page, metrics.
    READ = "read"
    # To change what the server does: loading, unloading, settings.
    CONTROL = "control"


OIP = "/inference.GRPCInferenceService/"
PREDICTION = "/tensorflow.serving.PredictionService/"
MODELS = "/tensorflow.serving.ModelService/"

# Open to everybody: what probes ask.
OPEN = (OIP + "ServerLive", OIP + "ServerReady", OIP + "ModelReady", "/grpc.health.v1.Health/")

# By the beginning of a method's path; the first that fits counts.
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
    """Return what a call of a method needs; None when it is open to everybody."""
    if method.startswith(OPEN):
        return None
    # What the table does not know is for those who may do everything.
    return next((needed for prefix, needed in TABLE if method.startswith(prefix)), Permission.CONTROL)
