//! A complete message, possibly compressed: decompressed it may take a thousand times the memory.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use crate::grpc::budget::{Budget, Reservation};
use crate::grpc::compression::{Decompressor, Encoding};
use crate::grpc::status::Status;
use crate::rope::Rope;

/// A message as received, with its reservation in the server's memory budget.
pub struct IncomingMessage {
    message: Rope,
    /// The encoding, and the maximum size of the decompressed message.
    compression: Option<(Encoding, usize)>,
    reservation: Reservation,
}

impl IncomingMessage {
    /// Creates a message; `compression` is its encoding and the maximum size of the decompressed message.
    pub fn new(
        message: Rope,
        compression: Option<(Encoding, usize)>,
        mut reservation: Reservation,
    ) -> IncomingMessage {
        reservation.resize(message.weight());
        IncomingMessage { message, compression, reservation }
    }

    /// Creates an uncompressed message; an error if it exceeds the budget.
    pub fn uncompressed(message: Rope, budget: &Arc<Budget>) -> Result<IncomingMessage, Status> {
        let received = IncomingMessage::new(message, None, Reservation::new(budget));
        received.check().map(|()| received)
    }

    /// Returns RESOURCE_EXHAUSTED if the budget is exceeded.
    pub fn check(&self) -> Result<(), Status> {
        self.reservation.check()
    }

    /// Decompresses the message, blocking.
    pub fn decode(self) -> Result<(Rope, Reservation), Status> {
        let IncomingMessage { message, compression, mut reservation } = self;
        let Some((encoding, limit)) = compression else { return Ok((message, reservation)) };
        let mut decompressor = Decompressor::new(encoding, message, limit);
        while !advance(&mut decompressor, &mut reservation)? {}
        Ok((decompressor.finish(), reservation))
    }

    /// The same for an event loop: a message of more than one chunk is decompressed in a blocking thread, which stops
    /// when the future is dropped.
    pub async fn decode_async(self) -> Result<(Rope, Reservation), Status> {
        let IncomingMessage { message, compression, mut reservation } = self;
        let Some((encoding, limit)) = compression else { return Ok((message, reservation)) };
        let mut decompressor = Decompressor::new(encoding, message, limit);
        if advance(&mut decompressor, &mut reservation)? {
            return Ok((decompressor.finish(), reservation));
        }
        let (sender, decoded) = oneshot::channel();
        spawn_blocking(move || {
            while !sender.is_closed() {
                match advance(&mut decompressor, &mut reservation) {
                    Ok(false) => continue,
                    Ok(true) => drop(sender.send(Ok((decompressor.finish(), reservation)))),
                    Err(status) => drop(sender.send(Err(status))),
                }
                return;
            }
        });
        decoded.await.unwrap_or_else(|_| Err(Status::internal("the message was not decompressed")))
    }
}

/// Decompresses a chunk and grows the reservation; returns whether it was the last.
fn advance(decompressor: &mut Decompressor, reservation: &mut Reservation) -> Result<bool, Status> {
    let complete = decompressor.advance()?;
    reservation.grow_to(decompressor.decompressed_len());
    if !complete {
        reservation.check()?;
    }
    Ok(complete)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::status::Code;

    #[test]
    fn what_it_decompresses_to_counts_too() {
        let message = vec![0; 1 << 20];
        let compressed: Rope = Encoding::Gzip.compress(&message).unwrap().into();
        let decode = |budget: usize, limit: usize, others: usize| {
            let budget = Arc::new(Budget::new(budget));
            let mut reservation = Reservation::new(&budget);
            reservation.resize(others);
            let decoded = IncomingMessage::new(
                compressed.clone(),
                Some((Encoding::Gzip, limit)),
                Reservation::new(&budget),
            )
            .decode();
            let decoded = decoded
                .map(|(message, reservation)| (message.into_bytes(), budget.reserved(), drop(reservation)));
            assert_eq!(budget.reserved(), others);
            decoded.map(|(message, reserved, ())| (message, reserved)).map_err(|status| status.code)
        };
        assert_eq!(decode(1 << 20, 1 << 20, 0), Ok((message.clone().into(), 1 << 20)));
        assert_eq!(decode(1 << 20, 1 << 20, 1), Err(Code::ResourceExhausted));
        assert_eq!(decode(1 << 30, 1 << 19, 0), Err(Code::ResourceExhausted));
    }
}
