//! REST requests, in JSON and binary: tensors of requests that pass the validation match the signature exactly.
#![no_main]

use kerve_wire::bytes_tensor;
use kerve_wire::datatype::Datatype;
use kerve_wire::infer::InferRequest;
use kerve_wire::rest::{predict_request, raw, request};
use kerve_wire::rope::Rope;
use kerve_wire::signature::{Dimension, Signature, TensorSpec};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [datatype, json, body @ ..] = data else { return };
    let all: Vec<Datatype> = Datatype::all().collect();
    let datatype = all[usize::from(*datatype) % all.len()];
    let spec = |name: &str, optional| TensorSpec {
        name: name.to_owned(),
        datatype,
        shape: vec![Dimension::Named("batch".to_owned()), Dimension::Any],
        labels: Vec::new(),
        optional,
    };
    let signature = Signature {
        model: "m".to_owned(),
        version: 1,
        inputs: vec![spec("x", false), spec("z", true)],
        outputs: vec![spec("y", false)],
        batched: true,
    };
    let single = Signature { inputs: vec![spec("x", false)], ..signature.clone() };
    let body = Rope::from(body.to_vec());
    let Some(json) = body.len().checked_sub(usize::from(*json) % 64) else { return };
    check(request::decode(&body, json, "m", "").map(|(infer, _)| infer), &signature);
    check(predict_request::decode(&body, &signature, "m", "").map(|(infer, _)| infer), &signature);
    check(raw::decode(body, &single, "m", ""), &single);
});

fn check(infer: Option<InferRequest>, signature: &Signature) {
    let Some(checked) = infer.and_then(|infer| signature.check(infer).ok()) else { return };
    for (tensor, spec) in checked.tensors.iter().zip(&signature.inputs) {
        let Some(tensor) = tensor else { continue };
        assert_eq!(tensor.shape[0], checked.rows);
        let elements: usize = tensor.shape.iter().product();
        match spec.datatype.size() {
            Some(size) => assert_eq!(tensor.data.len(), elements * size),
            None => assert_eq!(bytes_tensor::count(&tensor.data), Ok(elements)),
        }
    }
}
