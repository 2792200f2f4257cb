//! A lock, and those who sleep until what it guards has changed.
//!
//! Written against `super::sync`: `tests/loom.rs` puts loom's primitives there, and tries every interleaving.

use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::time::Duration;

use super::sync::{Condvar, Mutex, MutexGuard};

/// Guards a value.
pub struct Gate<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    value: T,
    sleepers: usize,
}

/// The value, for as long as nobody else may have it.
pub struct Inside<'a, T>(MutexGuard<'a, State<T>>);

impl<T> Gate<T> {
    /// Guards this value; nobody sleeps.
    pub fn new(value: T) -> Gate<T> {
        Gate { state: Mutex::new(State { value, sleepers: 0 }), changed: Condvar::new() }
    }

    /// Waits for the value. A panic of somebody else inside leaves it as it is.
    pub fn enter(&self) -> Inside<'_, T> {
        Inside(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Leaves, sleeps until somebody wakes it or the time is over (or for no reason), and enters again.
    pub fn sleep<'a>(&self, inside: Inside<'a, T>, timeout: Option<Duration>) -> Inside<'a, T> {
        let mut state = inside.0;
        state.sleepers += 1;
        let mut state = match timeout {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                self.changed.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.sleepers -= 1;
        Inside(state)
    }

    /// Wakes one who sleeps, if there is one.
    pub fn wake_one(&self) {
        self.changed.notify_one();
    }

    /// Wakes all who sleep.
    pub fn wake_all(&self) {
        self.changed.notify_all();
    }
}

impl<T> Inside<'_, T> {
    /// Whether somebody sleeps; whoever makes work then is to wake one after leaving.
    pub fn has_sleepers(&self) -> bool {
        self.0.sleepers > 0
    }
}

impl<T> Deref for Inside<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> DerefMut for Inside<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0.value
    }
}
