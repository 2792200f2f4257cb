"""Generated from proto/kerve/artifact/v1/manifest.proto by `make proto`. Do not edit."""

from google.protobuf.internal import builder as _builder

from kerve import descriptors as _descriptors

DESCRIPTOR = _descriptors.load(
    b'\n kerve/artifact/v1/manifest.proto\x12\x11kerve.artifact.v1"\x88\x06\n\x08Ma'
    b'nifest\x12\x16\n\x06schema\x18\x01 \x01(\rR\x06schema\x12\x12\n\x04name\x18\x02 \x01(\tR\x04name\x12:\n\tsignat'
    b'ure\x18\x03 \x01(\x0b2\x1c.kerve.artifact.v1.SignatureR\tsignature\x121\n\x06source'
    b'\x18\x04 \x01(\x0b2\x19.kerve.artifact.v1.SourceR\x06source\x12H\n\ttoolchain\x18\x05 \x03(\x0b'
    b'2*.kerve.artifact.v1.Manifest.ToolchainEntryR\ttoolchain\x12\x14\n\x05o'
    b'pset\x18\x06 \x01(\x05R\x05opset\x12\x1c\n\tprecision\x18\x07 \x01(\tR\tprecision\x12<\n\x05files\x18\x08 \x03'
    b'(\x0b2&.kerve.artifact.v1.Manifest.FilesEntryR\x05files\x12C\n\x0cverific'
    b'ation\x18\t \x01(\x0b2\x1f.kerve.artifact.v1.VerificationR\x0cverification\x122'
    b'\n\x05state\x18\n \x03(\x0b2\x1c.kerve.artifact.v1.StateSpecR\x05state\x12=\n\nevalua'
    b'tion\x18\x0b \x01(\x0b2\x1d.kerve.artifact.v1.EvaluationR\nevaluation\x12\x1a\n\x08war'
    b'nings\x18\x0c \x03(\tR\x08warnings\x12<\n\nextensions\x18\r \x03(\x0b2\x1c.kerve.artifact.v'
    b'1.ExtensionR\nextensions\x1a<\n\x0eToolchainEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12'
    b'\x14\n\x05value\x18\x02 \x01(\tR\x05value:\x028\x01\x1aU\n\nFilesEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x121\n'
    b'\x05value\x18\x02 \x01(\x0b2\x1b.kerve.artifact.v1.FileInfoR\x05value:\x028\x01"\x95\x01\n\tSig'
    b'nature\x125\n\x06inputs\x18\x01 \x03(\x0b2\x1d.kerve.artifact.v1.TensorSpecR\x06input'
    b's\x127\n\x07outputs\x18\x02 \x03(\x0b2\x1d.kerve.artifact.v1.TensorSpecR\x07outputs\x12\x18'
    b'\n\x07batched\x18\x03 \x01(\x08R\x07batched"\xa4\x01\n\nTensorSpec\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12'
    b'\x1a\n\x08datatype\x18\x02 \x01(\tR\x08datatype\x122\n\x05shape\x18\x03 \x03(\x0b2\x1c.kerve.artifact.'
    b'v1.DimensionR\x05shape\x12\x16\n\x06labels\x18\x04 \x03(\tR\x06labels\x12\x1a\n\x08optional\x18\x05 \x01('
    b'\x08R\x08optional"C\n\tDimension\x12\x14\n\x04size\x18\x01 \x01(\x03H\x00R\x04size\x12\x18\n\x06symbol\x18\x02 \x01'
    b'(\tH\x00R\x06symbolB\x06\n\x04kind"v\n\x06Source\x12\x12\n\x04kind\x18\x01 \x01(\tR\x04kind\x12\x1b\n\tfile_n'
    b'ame\x18\x02 \x01(\tR\x08fileName\x12\x16\n\x06sha256\x18\x03 \x01(\tR\x06sha256\x12#\n\rkeras_version'
    b'\x18\x04 \x01(\tR\x0ckerasVersion"8\n\x08FileInfo\x12\x16\n\x06sha256\x18\x01 \x01(\tR\x06sha256\x12\x14\n\x05'
    b'bytes\x18\x02 \x01(\x04R\x05bytes"\xf5\x03\n\x0cVerification\x12=\n\x06checks\x18\x01 \x03(\x0b2%.kerve.'
    b'artifact.v1.Verification.CheckR\x06checks\x1a\xa5\x03\n\x05Check\x12\x12\n\x04data\x18\x01 \x01'
    b'(\tR\x04data\x12\x1d\n\nbatch_size\x18\x02 \x01(\rR\tbatchSize\x12U\n\ndimensions\x18\x03 \x03(\x0b2'
    b'5.kerve.artifact.v1.Verification.Check.DimensionsEntryR\ndime'
    b'nsions\x12\x16\n\x06output\x18\x04 \x01(\tR\x06output\x12\x12\n\x04rtol\x18\x05 \x01(\x01R\x04rtol\x12\x12\n\x04atol\x18\x06'
    b' \x01(\x01R\x04atol\x12"\n\rmax_abs_error\x18\x07 \x01(\x01R\x0bmaxAbsError\x12$\n\x0emean_abs_e'
    b'rror\x18\x08 \x01(\x01R\x0cmeanAbsError\x12"\n\rmax_rel_error\x18\t \x01(\x01R\x0bmaxRelError'
    b'\x12%\n\x0enan_mismatches\x18\n \x01(\x04R\rnanMismatches\x1a=\n\x0fDimensionsEntry\x12\x10'
    b'\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\x03R\x05value:\x028\x01"\x86\x01\n\tStateSpec\x12\x14\n\x05'
    b'input\x18\x01 \x01(\tR\x05input\x12\x16\n\x06output\x18\x02 \x01(\tR\x06output\x121\n\x04spec\x18\x03 \x01(\x0b2\x1d.k'
    b'erve.artifact.v1.TensorSpecR\x04spec\x12\x18\n\x07initial\x18\x04 \x01(\x0cR\x07initial"'
    b'\xdd\x05\n\nEvaluation\x12\x16\n\x06update\x18\x01 \x01(\tR\x06update\x12\x18\n\x07results\x18\x02 \x01(\tR\x07res'
    b'ults\x12>\n\x07targets\x18\x03 \x03(\x0b2$.kerve.artifact.v1.Evaluation.TargetR'
    b'\x07targets\x122\n\x05state\x18\x04 \x03(\x0b2\x1c.kerve.artifact.v1.StateSpecR\x05state'
    b'\x12>\n\x07metrics\x18\x05 \x03(\x0b2$.kerve.artifact.v1.Evaluation.MetricR\x07met'
    b'rics\x1a\xcc\x01\n\x06Target\x12\x16\n\x06output\x18\x01 \x01(\tR\x06output\x12+\n\x11predictions_input'
    b'\x18\x02 \x01(\tR\x10predictionsInput\x12!\n\x0clabels_input\x18\x03 \x01(\tR\x0blabelsInput\x12'
    b'#\n\rweights_input\x18\x04 \x01(\tR\x0cweightsInput\x125\n\x06labels\x18\x05 \x01(\x0b2\x1d.kerve'
    b'.artifact.v1.TensorSpecR\x06labels\x1a\xc6\x01\n\x06Metric\x12\x12\n\x04name\x18\x01 \x01(\tR\x04na'
    b'me\x12\x12\n\x04kind\x18\x02 \x01(\tR\x04kind\x12\x16\n\x06output\x18\x03 \x01(\tR\x06output\x125\n\x06result\x18\x04 \x01'
    b'(\x0b2\x1d.kerve.artifact.v1.TensorSpecR\x06result\x12E\n\tdirection\x18\x05 \x01(\x0e'
    b'2\'.kerve.artifact.v1.Evaluation.DirectionR\tdirection"Q\n\tDire'
    b'ction\x12\x19\n\x15DIRECTION_UNSPECIFIED\x10\x00\x12\x14\n\x10HIGHER_IS_BETTER\x10\x01\x12\x13\n\x0fLO'
    b'WER_IS_BETTER\x10\x02"[\n\tExtension\x12\x16\n\x06domain\x18\x01 \x01(\tR\x06domain\x12\x1c\n\toper'
    b'ators\x18\x02 \x03(\tR\toperators\x12\x18\n\x07library\x18\x03 \x01(\tR\x07libraryb\x06proto3',
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
