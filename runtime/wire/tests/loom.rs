//! Tests the crate's own synchronization primitive, the queue's monitor, in every interleaving of its threads.

#[path = "../src/queue/monitor.rs"]
mod monitor;

/// The primitives that `monitor` is built on.
mod sync {
    pub use loom::sync::{Condvar, Mutex, MutexGuard};
}

use loom::sync::Arc;
use loom::thread::{self, JoinHandle};
use monitor::Monitor;

/// A queue of numbers that notifies like `Queue`: pushes are followed by one wake for several, and each taker wakes the
/// next.
#[derive(Default)]
struct Numbers {
    waiting: Vec<u32>,
    closed: bool,
}

type Shared = Arc<Monitor<Numbers>>;

fn push(monitor: &Monitor<Numbers>, number: u32) -> bool {
    let mut numbers = monitor.lock();
    numbers.waiting.push(number);
    numbers.has_waiters()
}

fn take(monitor: &Monitor<Numbers>) -> Option<u32> {
    let mut numbers = monitor.lock();
    let taken = loop {
        match numbers.waiting.pop() {
            Some(number) => break number,
            None if numbers.closed => return None,
            None => numbers = monitor.wait(numbers, None),
        }
    };
    let more = numbers.has_waiters() && !numbers.waiting.is_empty();
    drop(numbers);
    if more {
        monitor.notify_one();
    }
    Some(taken)
}

fn two_takers(monitor: &Shared) -> [JoinHandle<Option<u32>>; 2] {
    [monitor.clone(), monitor.clone()].map(|monitor| thread::spawn(move || take(&monitor)))
}

fn taken(takers: [JoinHandle<Option<u32>>; 2]) -> [Option<u32>; 2] {
    let mut taken = takers.map(|taker| taker.join().unwrap());
    taken.sort_unstable();
    taken
}

#[test]
fn two_that_are_pushed_with_one_wake_reach_two_takers() {
    loom::model(|| {
        let monitor = Shared::new(Monitor::new(Numbers::default()));
        let takers = two_takers(&monitor);
        if [1, 2].map(|number| push(&monitor, number)).contains(&true) {
            monitor.notify_one();
        }
        assert_eq!(taken(takers), [Some(1), Some(2)]);
    });
}

#[test]
fn what_two_workers_push_is_taken() {
    loom::model(|| {
        let monitor = Shared::new(Monitor::new(Numbers::default()));
        let workers = [1, 2].map(|number| {
            let monitor = monitor.clone();
            thread::spawn(move || {
                if push(&monitor, number) {
                    monitor.notify_one();
                }
            })
        });
        assert_eq!(take(&monitor).unwrap() + take(&monitor).unwrap(), 3);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

#[test]
fn a_close_reaches_everybody_after_what_was_pushed() {
    loom::model(|| {
        let monitor = Shared::new(Monitor::new(Numbers::default()));
        let takers = two_takers(&monitor);
        if push(&monitor, 1) {
            monitor.notify_one();
        }
        monitor.lock().closed = true;
        monitor.notify_all();
        assert_eq!(taken(takers), [None, Some(1)]);
    });
}
