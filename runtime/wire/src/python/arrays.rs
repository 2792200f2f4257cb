//! Conversion between NumPy arrays and the bytes of tensors.

use std::ptr::null_mut;

use bytes::Bytes;
use numpy::npyffi::{self, NpyTypes, PY_ARRAY_API, flags, npy_intp};
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyKeyError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use crate::bytes_tensor;
use crate::datatype::Datatype;
use crate::output::{Output, OutputData};
use crate::python::local::array_bytes;
use crate::queue::batch::Batch;
use crate::signature::{Shape, Tensor, TensorSpec, quote};

/// A tensor spec as Python objects.
pub struct PyTensorSpec {
    /// Its name, interned.
    pub name: Py<PyString>,
    /// The NumPy dtype of its elements.
    pub dtype: Py<PyArrayDescr>,
    /// The element type.
    pub datatype: Datatype,
}

impl PyTensorSpec {
    /// Converts a spec.
    pub fn new(py: Python<'_>, spec: &TensorSpec) -> PyResult<PyTensorSpec> {
        let name = PyString::intern(py, &spec.name).unbind();
        let dtype = PyArrayDescr::new(py, spec.datatype.numpy())?.unbind();
        Ok(PyTensorSpec { name, dtype, datatype: spec.datatype })
    }
}

/// The base object of an array; keeps its memory alive.
#[pyclass(frozen, name = "Buffer", module = "kerve_wire._native")]
struct Owner(#[allow(dead_code, reason = "it is there to be dropped")] Bytes);

/// Returns an input of a batch as an array; None if the requests omit it.
pub fn input<'py>(
    py: Python<'py>,
    batch: &Batch,
    position: usize,
    spec: &PyTensorSpec,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Some(shape) = batch.shape(position) else { return Ok(None) };
    if spec.datatype == Datatype::Bytes {
        return objects(py, &batch.contents(position), spec, &shape).map(Some);
    }
    let buffer = py.detach(|| batch.buffer(position));
    numbers(py, buffer, spec, &shape).map(Some)
}

/// Returns an output of an in-process request as an array on the memory of `data`.
pub fn show<'py>(
    py: Python<'py>,
    spec: &PyTensorSpec,
    shape: &Shape,
    data: Bytes,
) -> PyResult<Bound<'py, PyAny>> {
    if spec.datatype == Datatype::Bytes {
        return objects(py, &[data], spec, shape);
    }
    if data.is_empty() {
        return py.import("numpy")?.call_method1("empty", (shape.to_vec(), spec.dtype.bind(py)));
    }
    numbers(py, data, spec, shape)
}

/// Creates a read-only array of fixed-size elements on a buffer, which is aligned for them.
fn numbers<'py>(
    py: Python<'py>,
    buffer: Bytes,
    spec: &PyTensorSpec,
    shape: &Shape,
) -> PyResult<Bound<'py, PyAny>> {
    let pointer = buffer.as_ptr().cast_mut();
    let owner = Bound::new(py, Owner(buffer))?;
    let mut dims: Vec<npy_intp> = shape.iter().map(|&size| size as npy_intp).collect();
    // SAFETY: the pointer has as many bytes as the shape has elements of this type, aligned for them, and lives as
    // long as `owner`, to which the array gets a reference. Both calls steal the references they are given.
    unsafe {
        let array = PY_ARRAY_API.PyArray_NewFromDescr(
            py,
            npyffi::get_type_object(py, NpyTypes::PyArray_Type),
            spec.dtype.clone_ref(py).into_ptr().cast(),
            dims.len() as _,
            dims.as_mut_ptr(),
            null_mut(),
            pointer.cast(),
            // Not writeable.
            flags::NPY_ARRAY_ALIGNED,
            null_mut(),
        );
        let array = Bound::from_owned_ptr_or_err(py, array)?;
        if PY_ARRAY_API.PyArray_SetBaseObject(py, array.as_ptr().cast(), owner.into_ptr()) != 0 {
            return Err(PyErr::fetch(py));
        }
        Ok(array)
    }
}

/// Creates an array of objects from BYTES contents.
fn objects<'py>(
    py: Python<'py>,
    pieces: &[Bytes],
    spec: &PyTensorSpec,
    shape: &Shape,
) -> PyResult<Bound<'py, PyAny>> {
    let list = PyList::empty(py);
    for contents in pieces {
        for element in bytes_tensor::elements(contents) {
            list.append(PyBytes::new(py, element.map_err(PyValueError::new_err)?))?;
        }
    }
    let numpy = py.import("numpy")?;
    // np.array() would create a fixed-width array.
    let array = numpy.call_method1("empty", (list.len(), spec.dtype.bind(py)))?;
    array.set_item(pyo3::types::PySlice::full(py), list)?;
    array.call_method1("reshape", (shape.to_vec(),))
}

/// Converts an array of an in-process request to a tensor that shares the array's memory.
pub fn tensor(value: Bound<'_, PyAny>, spec: &TensorSpec, py_spec: &PyTensorSpec) -> PyResult<Tensor> {
    let place = || format!("input {}", quote(&spec.name));
    let array = contiguous(value, py_spec, &place)?;
    let shape = Shape::from_slice(array.shape());
    if shape.len() != spec.shape.len() {
        return Err(PyValueError::new_err(format!(
            "{}: expected {} dimensions, got shape {shape:?}",
            place(),
            spec.shape.len()
        )));
    }
    let data = if py_spec.datatype == Datatype::Bytes {
        byte_strings(&array, &shape, &place)?.0.into()
    } else {
        let (data, len) = memory(&array);
        array_bytes(array.into_any().unbind(), data, len).into()
    };
    Ok(Tensor { shape, data })
}

/// Returns the value as a C-contiguous array of the spec's dtype (BYTES: any array).
fn contiguous<'py>(
    value: Bound<'py, PyAny>,
    spec: &PyTensorSpec,
    place: &dyn Fn() -> String,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let py = value.py();
    let array = value
        .cast_into::<PyUntypedArray>()
        .map_err(|_| PyTypeError::new_err(format!("{} is not a NumPy array", place())))?;
    if spec.datatype == Datatype::Bytes {
        return Ok(array);
    }
    let (expected, got) = (spec.dtype.bind(py), array.dtype());
    if !got.is_equiv_to(expected) {
        return Err(PyTypeError::new_err(format!("{}: expected dtype {expected}, got {got}", place())));
    }
    if array.is_c_contiguous() {
        return Ok(array);
    }
    Ok(py.import("numpy")?.call_method1("ascontiguousarray", (array,))?.cast_into()?)
}

/// Returns the address of the elements of a contiguous array, and their total bytes.
fn memory(array: &Bound<'_, PyUntypedArray>) -> (*const u8, usize) {
    let len = array.len() * array.dtype().itemsize();
    let pointer: *mut npyffi::PyArrayObject = array.as_array_ptr();
    // SAFETY: the array is alive.
    (unsafe { (*pointer).fields.data.cast::<u8>() }, len)
}

/// An output array, kept alive while its bytes are read.
pub struct OutputArray<'py> {
    position: usize,
    shape: Shape,
    array: Bound<'py, PyUntypedArray>,
    varying: Option<(Vec<u8>, Vec<usize>)>,
}

impl<'py> OutputArray<'py> {
    /// Takes the array of an output; an error if it does not match the signature.
    pub fn new(
        outputs: &Bound<'py, PyAny>,
        batch: &Batch,
        position: usize,
        py_spec: &PyTensorSpec,
    ) -> PyResult<OutputArray<'py>> {
        let signature = &batch.queue().signature;
        let spec = &signature.outputs[position];
        let place = || format!("output {} of model {}", quote(&spec.name), quote(&signature.model));
        let value = outputs
            .get_item(&py_spec.name)
            .map_err(|_| PyKeyError::new_err(format!("{} is missing", place())))?;
        let array = contiguous(value, py_spec, &place)?;
        let shape = Shape::from_slice(array.shape());
        let rows = batch.padded_rows();
        if signature.batched && shape.first() != Some(&rows) {
            return Err(PyValueError::new_err(format!(
                "{}: expected {rows} rows, got shape {shape:?}",
                place()
            )));
        }
        if py_spec.datatype == Datatype::Bytes {
            let varying = Some(byte_strings(&array, &shape, &place)?);
            return Ok(OutputArray { position, shape, array, varying });
        }
        Ok(OutputArray { position, shape, array, varying: None })
    }

    /// Returns the position and the output; with `shared`, its memory may be used after the call.
    pub fn output(&mut self, shared: bool) -> (usize, Output<'_>) {
        let data = match self.varying.take() {
            Some((data, ends)) => OutputData::Varying(data, ends),
            None => {
                let (data, len) = memory(&self.array);
                if shared {
                    OutputData::Shared(array_bytes(self.array.clone().into_any().unbind(), data, len))
                } else if len == 0 {
                    OutputData::Fixed(&[])
                } else {
                    // SAFETY: the array is contiguous and `self` keeps it alive; as with any call that releases the
                    // GIL, the caller must not write to it meanwhile.
                    OutputData::Fixed(unsafe { std::slice::from_raw_parts(data, len) })
                }
            }
        };
        (self.position, Output { shape: self.shape.clone(), data })
    }
}

/// Returns the raw contents of an array of bytes or str, and the end offset of each row.
fn byte_strings(
    array: &Bound<'_, PyUntypedArray>,
    shape: &Shape,
    place: &dyn Fn() -> String,
) -> PyResult<(Vec<u8>, Vec<usize>)> {
    let flat = array.call_method0("ravel")?.call_method0("tolist")?.cast_into::<PyList>()?;
    let per_row = shape.get(1..).map_or(1, |rest| rest.iter().product::<usize>());
    let rows = shape.first().copied().unwrap_or(1);
    let mut data = Vec::new();
    let mut ends = Vec::with_capacity(rows);
    let mut elements = flat.iter();
    for _ in 0..rows {
        for element in elements.by_ref().take(per_row) {
            if let Ok(bytes) = element.cast::<PyBytes>() {
                bytes_tensor::put(&mut data, bytes.as_bytes());
            } else if let Ok(text) = element.cast::<PyString>() {
                bytes_tensor::put(&mut data, text.to_cow()?.as_bytes());
            } else {
                let kind = element.get_type().name()?;
                return Err(PyTypeError::new_err(format!("{}: expected bytes or str, got {kind}", place())));
            }
        }
        ends.push(data.len());
    }
    Ok((data, ends))
}
