//! The validation: tensors of requests that pass it match the signature exactly.
#![no_main]

use kerve_wire::datatype::Datatype;
use kerve_wire::signature::{Dimension, Signature, TensorSpec};
use kerve_wire::{bytes_tensor, oip, tfs};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [datatype, body @ ..] = data else { return };
    let all: Vec<Datatype> = Datatype::all().collect();
    let datatype = all[usize::from(*datatype) % all.len()];
    let spec = |name: &str, optional| TensorSpec {
        name: name.to_owned(),
        datatype,
        shape: vec![Dimension::Named("batch".to_owned()), Dimension::Any, Dimension::Fixed(2)],
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
    let message = body.to_vec().into();
    for decode in [oip::request::decode, tfs::request::decode] {
        let Ok(checked) =
            decode(&message).map_err(drop).and_then(|infer| signature.check(infer).map_err(drop))
        else {
            continue;
        };
        for tensor in checked.tensors.iter().flatten() {
            assert_eq!(tensor.shape[0], checked.rows);
            let elements: usize = tensor.shape.iter().product();
            match datatype.size() {
                Some(size) => assert_eq!(tensor.data.len(), elements * size),
                None => assert_eq!(bytes_tensor::count(&tensor.data), Ok(elements)),
            }
            if datatype == Datatype::Bool {
                assert!(tensor.data.clone().into_bytes().iter().all(|&byte| byte <= 1));
            }
        }
    }
});
