//! A bounded queue from async callers to a thread.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

/// A queue of at most a fixed number of items. Callers wait for room without blocking; the thread
/// at the other end blocks until there is something.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    capacity: usize,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    waiting: Vec<Waker>,
    closed: bool,
}

impl<T> Queue<T> {
    pub fn new(capacity: usize) -> Self {
        let state = State { items: VecDeque::new(), waiting: Vec::new(), closed: false };
        Self { state: Mutex::new(state), filled: Condvar::new(), capacity }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an item in, when there is room. Answers whether the queue was open.
    pub async fn push(&self, item: T) -> bool {
        let mut item = Some(item);
        poll_fn(|context| {
            let mut state = self.lock();
            if state.closed {
                return Poll::Ready(false);
            }
            if state.items.len() >= self.capacity {
                state.waiting.push(context.waker().clone());
                return Poll::Pending;
            }
            state.items.extend(item.take());
            drop(state);
            self.filled.notify_one();
            Poll::Ready(true)
        })
        .await
    }

    /// Takes items from the front, at least one, while their weights come to at most `weight`.
    /// Blocks while there is none; answers none when the queue is closed and empty.
    pub fn pop(&self, weight: usize, weigh: impl Fn(&T) -> usize) -> Option<Vec<T>> {
        let mut state = self.lock();
        while state.items.is_empty() {
            if state.closed {
                return None;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let mut taken = Vec::new();
        let mut total = 0usize;
        while let Some(item) = state.items.front() {
            total = total.saturating_add(weigh(item));
            if !taken.is_empty() && total > weight {
                break;
            }
            taken.extend(state.items.pop_front());
        }
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        Some(taken)
    }

    /// Lets nothing more in. What is in it can still be taken.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.filled.notify_all();
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Throws away what is in it: nobody will take it any more.
    pub fn clear(&self) {
        let items = std::mem::take(&mut self.lock().items);
        drop(items);
    }
}
