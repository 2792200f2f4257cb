"""Generated from proto/kerve/evaluation/v1/evaluation.proto by `make proto`. Do not edit."""

from google.protobuf.internal import builder as _builder

from kerve import descriptors as _descriptors

DESCRIPTOR = _descriptors.load(
    b'\n$kerve/evaluation/v1/evaluation.proto\x12\x13kerve.evaluation.v1"'
    b'\x84\x01\n\x0fEvaluateRequest\x122\n\x05begin\x18\x01 \x01(\x0b2\x1a.kerve.evaluation.v1.Beg'
    b'inH\x00R\x05begin\x122\n\x05batch\x18\x02 \x01(\x0b2\x1a.kerve.evaluation.v1.BatchH\x00R\x05ba'
    b'tchB\t\n\x07message"\x8e\x01\n\x05Begin\x12\x14\n\x05model\x18\x01 \x01(\tR\x05model\x12\x1a\n\x08versions\x18\x02'
    b' \x03(\tR\x08versions\x12\x18\n\x07metrics\x18\x03 \x03(\tR\x07metrics\x12\x1d\n\nbatch_size\x18\x04 \x01(\r'
    b'R\tbatchSize\x12\x1a\n\x08interval\x18\x05 \x01(\x01R\x08interval">\n\x05Batch\x125\n\x07tensors\x18'
    b'\x01 \x03(\x0b2\x1b.kerve.evaluation.v1.TensorR\x07tensors"j\n\x06Tensor\x12\x12\n\x04nam'
    b'e\x18\x01 \x01(\tR\x04name\x12\x1a\n\x08datatype\x18\x02 \x01(\tR\x08datatype\x12\x14\n\x05shape\x18\x03 \x03(\x03R\x05sh'
    b'ape\x12\x1a\n\x08contents\x18\x04 \x01(\x0cR\x08contents"J\n\x10EvaluateResponse\x126\n\x07resul'
    b'ts\x18\x01 \x01(\x0b2\x1c.kerve.evaluation.v1.ResultsR\x07results"\x94\x02\n\x07Results\x12'
    b'\x14\n\x05model\x18\x01 \x01(\tR\x05model\x12\x18\n\x07version\x18\x02 \x01(\tR\x07version\x125\n\x07metrics\x18\x03'
    b' \x03(\x0b2\x1b.kerve.evaluation.v1.MetricR\x07metrics\x12\x12\n\x04rows\x18\x04 \x01(\x04R\x04ro'
    b'ws\x12\x18\n\x07seconds\x18\x05 \x01(\x01R\x07seconds\x12&\n\x0frows_per_second\x18\x06 \x01(\x01R\rrowsP'
    b'erSecond\x126\n\x07latency\x18\x07 \x01(\x0b2\x1c.kerve.evaluation.v1.LatencyR\x07lat'
    b'ency\x12\x14\n\x05final\x18\x08 \x01(\x08R\x05final"J\n\x06Metric\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x16\n\x06'
    b'values\x18\x02 \x03(\x01R\x06values\x12\x14\n\x05shape\x18\x03 \x03(\x03R\x05shape"\x7f\n\x07Latency\x12\x18\n\x07bat'
    b'ches\x18\x01 \x01(\x04R\x07batches\x12\x12\n\x04mean\x18\x02 \x01(\x01R\x04mean\x12\x10\n\x03p50\x18\x03 \x01(\x01R\x03p50\x12\x10\n'
    b'\x03p90\x18\x04 \x01(\x01R\x03p90\x12\x10\n\x03p99\x18\x05 \x01(\x01R\x03p99\x12\x10\n\x03max\x18\x06 \x01(\x01R\x03max"\x8c\x01\n\x0fComp'
    b'areResponse\x126\n\x07results\x18\x01 \x03(\x0b2\x1c.kerve.evaluation.v1.ResultsR\x07'
    b'results\x12A\n\x0bdifferences\x18\x02 \x03(\x0b2\x1f.kerve.evaluation.v1.Differenc'
    b'eR\x0bdifferences"\xab\x03\n\nDifference\x12\x18\n\x07version\x18\x01 \x01(\tR\x07version\x12\x1a\n\x08b'
    b'aseline\x18\x02 \x01(\tR\x08baseline\x12L\n\tagreement\x18\x03 \x03(\x0b2..kerve.evaluatio'
    b'n.v1.Difference.AgreementEntryR\tagreement\x12)\n\x10disagreeing_row'
    b's\x18\x04 \x03(\x04R\x0fdisagreeingRows\x12F\n\tintervals\x18\x05 \x03(\x0b2(.kerve.evaluati'
    b'on.v1.Difference.IntervalR\tintervals\x1a<\n\x0eAgreementEntry\x12\x10\n\x03ke'
    b'y\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\x01R\x05value:\x028\x01\x1ah\n\x08Interval\x12\x16\n\x06metric'
    b'\x18\x01 \x01(\tR\x06metric\x12\x1e\n\ndifference\x18\x02 \x01(\x01R\ndifference\x12\x10\n\x03low\x18\x03 \x01(\x01R'
    b'\x03low\x12\x12\n\x04high\x18\x04 \x01(\x01R\x04high"z\n\x0ePromoteRequest\x12\x14\n\x05model\x18\x01 \x01(\tR\x05m'
    b'odel\x12\x18\n\x07version\x18\x02 \x01(\tR\x07version\x12\x14\n\x05label\x18\x03 \x01(\tR\x05label\x12"\n\x0crequ'
    b'irements\x18\x04 \x03(\tR\x0crequirements"\xd4\x01\n\x0fPromoteResponse\x12\x1a\n\x08promoted'
    b'\x18\x01 \x01(\x08R\x08promoted\x12T\n\x0crequirements\x18\x02 \x03(\x0b20.kerve.evaluation.v1'
    b'.PromoteResponse.RequirementR\x0crequirements\x1aO\n\x0bRequirement\x12\x12\n'
    b'\x04text\x18\x01 \x01(\tR\x04text\x12\x14\n\x05holds\x18\x02 \x01(\x08R\x05holds\x12\x16\n\x06reason\x18\x03 \x01(\tR\x06rea'
    b'son"D\n\x16ListEvaluationsRequest\x12\x14\n\x05model\x18\x01 \x01(\tR\x05model\x12\x14\n\x05limit'
    b'\x18\x02 \x01(\rR\x05limit"P\n\x17ListEvaluationsResponse\x125\n\x07records\x18\x01 \x03(\x0b2\x1b.'
    b'kerve.evaluation.v1.RecordR\x07records"\xbf\x01\n\x06Record\x12\x0e\n\x02id\x18\x01 \x01(\x04R\x02'
    b'id\x12\x12\n\x04time\x18\x02 \x01(\tR\x04time\x12\x12\n\x04peer\x18\x03 \x01(\tR\x04peer\x12)\n\x10data_fingerpri'
    b'nt\x18\x04 \x01(\tR\x0fdataFingerprint\x12\x1a\n\x08hardware\x18\x05 \x01(\tR\x08hardware\x126\n\x07res'
    b'ults\x18\x06 \x01(\x0b2\x1c.kerve.evaluation.v1.ResultsR\x07results2\x8f\x03\n\x11Evalua'
    b'tionService\x12[\n\x08Evaluate\x12$.kerve.evaluation.v1.EvaluateReques'
    b't\x1a%.kerve.evaluation.v1.EvaluateResponse(\x010\x01\x12Y\n\x07Compare\x12$.ke'
    b'rve.evaluation.v1.EvaluateRequest\x1a$.kerve.evaluation.v1.Comp'
    b'areResponse(\x010\x01\x12T\n\x07Promote\x12#.kerve.evaluation.v1.PromoteRequ'
    b'est\x1a$.kerve.evaluation.v1.PromoteResponse\x12l\n\x0fListEvaluations'
    b'\x12+.kerve.evaluation.v1.ListEvaluationsRequest\x1a,.kerve.evalua'
    b'tion.v1.ListEvaluationsResponseb\x06proto3',
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
