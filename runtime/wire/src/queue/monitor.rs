//! A monitor: a mutex, its condition variable, and the number of threads that wait on it.
//!
//! Uses `super::sync`, which `tests/loom.rs` replaces with loom's primitives to test every interleaving.

use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::time::Duration;

use super::sync::{Condvar, Mutex, MutexGuard};

/// A value behind a mutex, with a condition variable for its changes.
pub struct Monitor<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    value: T,
    waiters: usize,
}

/// Exclusive access to the value.
pub struct MonitorGuard<'a, T>(MutexGuard<'a, State<T>>);

impl<T> Monitor<T> {
    /// Creates a monitor of a value.
    pub fn new(value: T) -> Monitor<T> {
        Monitor { state: Mutex::new(State { value, waiters: 0 }), changed: Condvar::new() }
    }

    /// Locks the value; a panic of another holder does not poison it.
    pub fn lock(&self) -> MonitorGuard<'_, T> {
        MonitorGuard(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Unlocks, blocks until notified, timed out or spuriously woken, and locks again.
    pub fn wait<'a>(&self, guard: MonitorGuard<'a, T>, timeout: Option<Duration>) -> MonitorGuard<'a, T> {
        let mut state = guard.0;
        state.waiters += 1;
        let mut state = match timeout {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                self.changed.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.waiters -= 1;
        MonitorGuard(state)
    }

    /// Wakes one waiter, if there is one.
    pub fn notify_one(&self) {
        self.changed.notify_one();
    }

    /// Wakes all waiters.
    pub fn notify_all(&self) {
        self.changed.notify_all();
    }
}

impl<T> MonitorGuard<'_, T> {
    /// Whether a thread is waiting; a caller that adds work must then notify one after unlocking.
    pub fn has_waiters(&self) -> bool {
        self.0.waiters > 0
    }
}

impl<T> Deref for MonitorGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> DerefMut for MonitorGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0.value
    }
}
