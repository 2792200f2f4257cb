//! The one hand-made piece of synchronisation, a queue's gate, in every interleaving that there is.

#[path = "../src/queue/gate.rs"]
mod gate;

/// What `gate` is built on.
mod sync {
    pub use loom::sync::{Condvar, Mutex, MutexGuard};
}

use gate::Gate;
use loom::sync::Arc;
use loom::thread::{self, JoinHandle};

/// A queue of numbers as `Queue` has it: who pushes wakes later, once for several, and who takes passes it on.
#[derive(Default)]
struct Numbers {
    waiting: Vec<u32>,
    closed: bool,
}

type Shared = Arc<Gate<Numbers>>;

fn push(gate: &Gate<Numbers>, number: u32) -> bool {
    let mut numbers = gate.enter();
    numbers.waiting.push(number);
    numbers.has_sleepers()
}

fn take(gate: &Gate<Numbers>) -> Option<u32> {
    let mut numbers = gate.enter();
    let taken = loop {
        match numbers.waiting.pop() {
            Some(number) => break number,
            None if numbers.closed => return None,
            None => numbers = gate.sleep(numbers, None),
        }
    };
    let more = numbers.has_sleepers() && !numbers.waiting.is_empty();
    drop(numbers);
    if more {
        gate.wake_one();
    }
    Some(taken)
}

fn two_takers(gate: &Shared) -> [JoinHandle<Option<u32>>; 2] {
    [gate.clone(), gate.clone()].map(|gate| thread::spawn(move || take(&gate)))
}

fn taken(takers: [JoinHandle<Option<u32>>; 2]) -> [Option<u32>; 2] {
    let mut taken = takers.map(|taker| taker.join().unwrap());
    taken.sort_unstable();
    taken
}

#[test]
fn two_that_are_pushed_with_one_wake_reach_two_takers() {
    loom::model(|| {
        let gate = Shared::new(Gate::new(Numbers::default()));
        let takers = two_takers(&gate);
        if [1, 2].map(|number| push(&gate, number)).contains(&true) {
            gate.wake_one();
        }
        assert_eq!(taken(takers), [Some(1), Some(2)]);
    });
}

#[test]
fn what_two_workers_push_is_taken() {
    loom::model(|| {
        let gate = Shared::new(Gate::new(Numbers::default()));
        let workers = [1, 2].map(|number| {
            let gate = gate.clone();
            thread::spawn(move || {
                if push(&gate, number) {
                    gate.wake_one();
                }
            })
        });
        assert_eq!(take(&gate).unwrap() + take(&gate).unwrap(), 3);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

#[test]
fn a_close_reaches_everybody_after_what_was_pushed() {
    loom::model(|| {
        let gate = Shared::new(Gate::new(Numbers::default()));
        let takers = two_takers(&gate);
        if push(&gate, 1) {
            gate.wake_one();
        }
        gate.enter().closed = true;
        gate.wake_all();
        assert_eq!(taken(takers), [None, Some(1)]);
    });
}
