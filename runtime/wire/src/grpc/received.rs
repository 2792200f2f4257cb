//! A message that is here in full, perhaps compressed: what it unfolds to may be a thousand times as much.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use crate::grpc::budget::{Budget, Hold};
use crate::grpc::compression::{Encoding, Unpacking};
use crate::grpc::status::Status;
use crate::rope::Rope;

/// A message as it came, and what it counts for in the server's budget until it is opened.
pub struct Received {
    message: Rope,
    /// How it is compressed, and the bytes that it may unfold to.
    packed: Option<(Encoding, usize)>,
    hold: Hold,
}

impl Received {
    /// A message that came as this; `packed`: how it is compressed, and the bytes that it may unfold to.
    pub fn new(message: Rope, packed: Option<(Encoding, usize)>, mut hold: Hold) -> Received {
        hold.set(message.weight());
        Received { message, packed, hold }
    }

    /// A message that is not compressed, if there is room for it to wait.
    pub fn here(message: Rope, budget: &Arc<Budget>) -> Result<Received, Status> {
        let received = Received::new(message, None, Hold::new(budget));
        received.check().map(|()| received)
    }

    /// RESOURCE_EXHAUSTED when all requests together hold too much for it to wait.
    pub fn check(&self) -> Result<(), Status> {
        self.hold.check()
    }

    /// The message itself, here and now, for threads that may take long; whoever drops the hold answers for its memory.
    pub fn open(self) -> Result<(Rope, Hold), Status> {
        let Received { message, packed, mut hold } = self;
        let Some((encoding, limit)) = packed else { return Ok((message, hold)) };
        let mut unpacking = Unpacking::new(encoding, message, limit);
        while !advance(&mut unpacking, &mut hold)? {}
        Ok((unpacking.finish(), hold))
    }

    /// The same for an event loop: what is more than a slice is decompressed in a thread of its own, until the call is
    /// given up.
    pub async fn opened(self) -> Result<(Rope, Hold), Status> {
        let Received { message, packed, mut hold } = self;
        let Some((encoding, limit)) = packed else { return Ok((message, hold)) };
        let mut unpacking = Unpacking::new(encoding, message, limit);
        if advance(&mut unpacking, &mut hold)? {
            return Ok((unpacking.finish(), hold));
        }
        let (sender, opened) = oneshot::channel();
        spawn_blocking(move || {
            while !sender.is_closed() {
                match advance(&mut unpacking, &mut hold) {
                    Ok(false) => continue,
                    Ok(true) => drop(sender.send(Ok((unpacking.finish(), hold)))),
                    Err(status) => drop(sender.send(Err(status))),
                }
                return;
            }
        });
        opened.await.unwrap_or_else(|_| Err(Status::internal("the message was not decompressed")))
    }
}

/// Decompresses a slice, which counts for as long as what it came from does; true when it was the last.
fn advance(unpacking: &mut Unpacking, hold: &mut Hold) -> Result<bool, Status> {
    let complete = unpacking.advance()?;
    hold.raise(unpacking.unpacked());
    if !complete {
        hold.check()?;
    }
    Ok(complete)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::status::Code;

    #[test]
    fn what_it_unfolds_to_counts_too() {
        let message = vec![0; 1 << 20];
        let packed: Rope = Encoding::Gzip.compress(&message).unwrap().into();
        let open = |budget: usize, limit: usize, others: usize| {
            let budget = Arc::new(Budget::new(budget));
            let mut hold = Hold::new(&budget);
            hold.set(others);
            let opened =
                Received::new(packed.clone(), Some((Encoding::Gzip, limit)), Hold::new(&budget)).open();
            let opened = opened.map(|(message, hold)| (message.into_bytes(), budget.held(), drop(hold)));
            assert_eq!(budget.held(), others);
            opened.map(|(message, held, ())| (message, held)).map_err(|status| status.code)
        };
        assert_eq!(open(1 << 20, 1 << 20, 0), Ok((message.clone().into(), 1 << 20)));
        assert_eq!(open(1 << 20, 1 << 20, 1), Err(Code::ResourceExhausted));
        assert_eq!(open(1 << 30, 1 << 19, 0), Err(Code::ResourceExhausted));
    }
}
