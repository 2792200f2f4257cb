//! The outputs of a run of the model, and views of the rows of one request.

use std::ops::Range;

use bytes::Bytes;

use crate::signature::Shape;

/// One output of a run.
#[derive(Debug)]
pub struct Output<'a> {
    /// Its shape.
    pub shape: Shape,
    /// Its elements.
    pub data: OutputData<'a>,
}

/// The elements of an output, in the form of raw contents.
#[derive(Debug)]
pub enum OutputData<'a> {
    /// Elements of one size.
    Fixed(&'a [u8]),
    /// Elements of one size, in memory that may outlive the run.
    Shared(Bytes),
    /// Byte strings, and the end offset of each row.
    Varying(Vec<u8>, Vec<usize>),
}

/// One output of one request.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// Its position in the signature.
    pub position: usize,
    /// Its shape.
    pub shape: Shape,
    /// Its elements, in the form of raw contents.
    pub data: &'a [u8],
    /// The memory of `data`, if it may outlive the run.
    pub owner: Option<&'a Bytes>,
}

impl View<'_> {
    /// Returns the elements for use after the run; copies them only if their memory cannot be shared.
    pub fn share(&self) -> Bytes {
        self.owner.map_or_else(|| Bytes::copy_from_slice(self.data), |owner| owner.slice_ref(self.data))
    }
}

impl Output<'_> {
    /// Returns a view of the given rows, or of the whole output if `rows` is None (model without a batch dimension).
    pub fn view(&self, position: usize, rows: Option<Range<usize>>) -> View<'_> {
        let Some(rows) = rows else {
            return View { position, shape: self.shape.clone(), data: self.all(), owner: self.owner() };
        };
        let mut shape = self.shape.clone();
        let total = std::mem::replace(&mut shape[0], rows.len());
        let data = match &self.data {
            OutputData::Fixed(_) | OutputData::Shared(_) => {
                let data = self.all();
                let size = data.len().checked_div(total).unwrap_or(0);
                &data[rows.start * size..rows.end * size]
            }
            OutputData::Varying(data, ends) => {
                let start = |row: usize| if row == 0 { 0 } else { ends[row - 1] };
                &data[start(rows.start)..start(rows.end)]
            }
        };
        View { position, shape, data, owner: self.owner() }
    }

    fn owner(&self) -> Option<&Bytes> {
        match &self.data {
            OutputData::Shared(data) => Some(data),
            _ => None,
        }
    }

    fn all(&self) -> &[u8] {
        match &self.data {
            OutputData::Fixed(data) => data,
            OutputData::Shared(data) => data,
            OutputData::Varying(data, _) => data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_out() {
        let output =
            Output { shape: Shape::from_slice(&[3, 2]), data: OutputData::Fixed(&[1, 2, 3, 4, 5, 6]) };
        let view = output.view(0, Some(1..3));
        assert_eq!((view.shape.as_slice(), view.data), (&[2, 2][..], &[3, 4, 5, 6][..]));
        let varying = OutputData::Varying(vec![1, 2, 3, 4], vec![1, 1, 4]);
        let output = Output { shape: Shape::from_slice(&[3]), data: varying };
        assert_eq!(output.view(0, Some(0..1)).data, [1]);
        assert!(output.view(0, Some(1..2)).data.is_empty());
        assert_eq!(output.view(0, Some(1..3)).data, [2, 3, 4]);
        assert_eq!(output.view(0, None).data, [1, 2, 3, 4]);
    }

    #[test]
    fn shared_memory_is_not_copied() {
        let data = Bytes::from(vec![1, 2, 3, 4]);
        let output = Output { shape: Shape::from_slice(&[2, 2]), data: OutputData::Shared(data.clone()) };
        assert_eq!(output.view(0, Some(1..2)).share().as_ptr(), data[2..].as_ptr());
        assert_eq!(output.view(0, Some(1..2)).share(), [3, 4][..]);
    }

    #[test]
    fn no_rows_at_all_are_no_rows() {
        let output = Output { shape: Shape::from_slice(&[0, 2]), data: OutputData::Fixed(&[]) };
        assert!(output.view(0, Some(0..0)).data.is_empty());
    }
}
