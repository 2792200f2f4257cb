//! Aligned memory for the inputs of batches, from a pool: page faults of fresh memory would cost more than the copy.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// A cache line, suited for SIMD; ONNX Runtime's own tensors have the same alignment.
const ALIGNMENT: usize = 64;

/// The maximum number of free blocks in a pool, and their maximum total size in bytes.
const MAX_FREE_BLOCKS: usize = 16;
const MAX_FREE_BYTES: usize = 64 << 20;

/// A free list of blocks.
#[derive(Default)]
pub struct Pool {
    free: Mutex<FreeList>,
}

/// The free blocks, least recently used first.
#[derive(Default)]
struct FreeList {
    blocks: VecDeque<Block>,
    bytes: usize,
}

struct Block {
    pointer: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a block owns its memory, which is not bound to a thread.
unsafe impl Send for Block {}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: `pointer` came from `alloc_zeroed` with this layout, and the block is its only owner.
        unsafe { dealloc(self.pointer.as_ptr(), self.layout) }
    }
}

/// The memory of a tensor; returned to its pool on drop.
pub struct Buffer {
    block: Option<Block>,
    len: usize,
    pool: Arc<Pool>,
}

impl Buffer {
    /// Returns `len` aligned bytes, all of which `fill` writes.
    pub fn filled(pool: &Arc<Pool>, len: usize, fill: impl FnOnce(&mut [u8])) -> Bytes {
        let block = pool.acquire(len).unwrap_or_else(|| Block::new(len));
        // SAFETY: the block has at least `len` bytes, initialized on allocation, and no other owner.
        fill(unsafe { std::slice::from_raw_parts_mut(block.pointer.as_ptr(), len) });
        Bytes::from_owner(Buffer { block: Some(block), len, pool: pool.clone() })
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        let Some(block) = &self.block else { return &[] };
        // SAFETY: the block has at least `len` bytes, initialized on allocation, lives as long as `self`, and is not
        // written to after `filled`.
        unsafe { std::slice::from_raw_parts(block.pointer.as_ptr(), self.len) }
    }
}

/// Whether the bytes are aligned as the input of a batch must be.
pub fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().addr().is_multiple_of(ALIGNMENT)
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.pool.release(block);
        }
    }
}

impl Block {
    fn new(len: usize) -> Block {
        let size = len.next_power_of_two().max(ALIGNMENT);
        let layout =
            Layout::from_size_align(size, ALIGNMENT).expect("the size was checked against the signature");
        // SAFETY: the layout's size is not zero. Zeroed memory is initialized, at no cost for large blocks.
        let pointer = unsafe { alloc_zeroed(layout) };
        let Some(pointer) = NonNull::new(pointer) else { handle_alloc_error(layout) };
        Block { pointer, layout }
    }
}

impl Pool {
    /// Takes a free block of exactly the size that `Block::new` would allocate.
    fn acquire(&self, len: usize) -> Option<Block> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let size = len.next_power_of_two().max(ALIGNMENT);
        let position = free.blocks.iter().rposition(|block| block.layout.size() == size)?;
        free.bytes -= size;
        free.blocks.remove(position)
    }

    fn release(&self, block: Block) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.bytes += block.layout.size();
        free.blocks.push_back(block);
        while free.blocks.len() > MAX_FREE_BLOCKS || free.bytes > MAX_FREE_BYTES {
            free.bytes -= free.blocks.pop_front().map_or(0, |block| block.layout.size());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_come_back() {
        let pool = Arc::<Pool>::default();
        let first = Buffer::filled(&pool, 100, |target| target.fill(7));
        let pointer = first.as_ptr();
        assert!(is_aligned(&first));
        assert_eq!(&first[..], [7; 100]);
        drop(first);
        let second = Buffer::filled(&pool, 128, |target| assert_eq!(target[99], 7));
        assert_eq!(second.as_ptr(), pointer);
        let third = Buffer::filled(&pool, 128, |_| ());
        assert_ne!(third.as_ptr(), pointer);
    }

    #[test]
    fn the_pool_stays_small() {
        let pool = Arc::<Pool>::default();
        drop((0..2 * MAX_FREE_BLOCKS).map(|_| Buffer::filled(&pool, 8, |_| ())).collect::<Vec<_>>());
        assert_eq!(pool.free.lock().unwrap().blocks.len(), MAX_FREE_BLOCKS);
        drop(Buffer::filled(&pool, MAX_FREE_BYTES, |_| ()));
        let free = pool.free.lock().unwrap();
        assert_eq!((free.blocks.len(), free.bytes), (1, MAX_FREE_BYTES));
    }

    #[test]
    fn no_bytes_are_a_buffer_too() {
        assert!(Buffer::filled(&Arc::default(), 0, |target| assert!(target.is_empty())).is_empty());
    }
}
