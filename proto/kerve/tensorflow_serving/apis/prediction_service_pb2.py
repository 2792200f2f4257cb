"""Generated from proto/tensorflow_serving/apis/prediction_service.proto by `make proto`. Do not edit."""

from google.protobuf.internal import builder as _builder

from kerve import descriptors as _descriptors
from kerve.tensorflow_serving.apis import classification_pb2 as _classification_pb2
from kerve.tensorflow_serving.apis import get_model_metadata_pb2 as _get_model_metadata_pb2
from kerve.tensorflow_serving.apis import inference_pb2 as _inference_pb2
from kerve.tensorflow_serving.apis import predict_pb2 as _predict_pb2
from kerve.tensorflow_serving.apis import regression_pb2 as _regression_pb2

DESCRIPTOR = _descriptors.load(
    b'\n0tensorflow_serving/apis/prediction_service.proto\x12\x12tensorfl'
    b'ow.serving\x1a,tensorflow_serving/apis/classification.proto\x1a0te'
    b"nsorflow_serving/apis/get_model_metadata.proto\x1a'tensorflow_s"
    b'erving/apis/inference.proto\x1a%tensorflow_serving/apis/predict'
    b'.proto\x1a(tensorflow_serving/apis/regression.proto2\xfc\x03\n\x11Predict'
    b'ionService\x12a\n\x08Classify\x12).tensorflow.serving.ClassificationRe'
    b'quest\x1a*.tensorflow.serving.ClassificationResponse\x12X\n\x07Regress'
    b'\x12%.tensorflow.serving.RegressionRequest\x1a&.tensorflow.serving'
    b'.RegressionResponse\x12R\n\x07Predict\x12".tensorflow.serving.PredictR'
    b'equest\x1a#.tensorflow.serving.PredictResponse\x12g\n\x0eMultiInferenc'
    b'e\x12).tensorflow.serving.MultiInferenceRequest\x1a*.tensorflow.se'
    b'rving.MultiInferenceResponse\x12m\n\x10GetModelMetadata\x12+.tensorflo'
    b'w.serving.GetModelMetadataRequest\x1a,.tensorflow.serving.GetMo'
    b'delMetadataResponseb\x06proto3',
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
