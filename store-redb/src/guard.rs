//! redb's panics, as errors of who asked.
//!
//! redb proves its pages after a crash, and trusts them otherwise. A file that was closed in good order and damaged
//! later can make it panic; so could a mistake of its own. Each call of redb goes through here: what it panics over is
//! an error that names the file and the way out, and what it leaves is dropped without a second panic.

use std::{
    any::Any,
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use sync_core::store::StoreError;

/// How redb ended a call.
pub(crate) struct Panicked(String);

/// Runs what is redb's alone: a panic of ours must go on as one.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| Panicked(message(&*panic)))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it did not say why").to_owned()
}

impl Panicked {
    /// While opening the file, or finding what is in it: there is nothing that could be opened again.
    pub fn opening(self, place: &str) -> StoreError {
        StoreError::Corrupt(format!("{place}: redb panicked over it ({})", self.0))
    }

    /// While using it: nothing that redb has in memory of the file may be relied on, so it is opened again.
    pub fn using(self, place: &str) -> StoreError {
        StoreError::Failed(format!(
            "{place}: redb panicked over it ({}); if it does so again the file is damaged: restore it from a copy, or \
             move it away and sync anew",
            self.0
        ))
    }
}

/// Runs what opens the file.
pub(crate) fn opening<T>(place: &str, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch(work).unwrap_or_else(|panicked| Err(panicked.opening(place)))
}

/// Runs what uses it.
pub(crate) fn using<T>(place: &str, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch(work).unwrap_or_else(|panicked| Err(panicked.using(place)))
}

/// Something of redb's that may panic when it is dropped: its locks are poisoned by panics.
pub(crate) struct Guarded<T>(Option<T>);

impl<T> Guarded<T> {
    pub fn new(thing: T) -> Self {
        Self(Some(thing))
    }

    /// Takes it out, to be given back to redb.
    pub fn into_inner(mut self) -> T {
        self.0.take().expect("it is taken once, at the end")
    }

    /// Drops it as a thread does that panics: redb then writes nothing more that it knows, and proves the file when it
    /// is opened again.
    pub fn abandon(mut self) {
        let thing = self.0.take();
        // Said to nobody: whoever panicked was heard.
        let _ = catch(|| {
            let _dropped_in_unwinding = thing;
            resume_unwind(Box::new(()));
        });
    }
}

impl<T> Deref for Guarded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is there until the end")
    }
}

impl<T> std::ops::DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("it is there until the end")
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        let thing = self.0.take();
        // The panic was reported when it happened, and its work has failed.
        let _ = catch(|| drop(thing));
    }
}
