//! The connections that a transport gave out: they end when it does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use sync_core::transport::{ByteStream, CloseReason, Connection, TransportError};
use tokio::sync::OwnedSemaphorePermit;

use crate::listen::Caller;

/// What a transport knows of its connections.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<Vec<Weak<Held>>>);

#[derive(Debug)]
struct Held {
    connection: Box<dyn Connection>,
    _place: Option<Place>,
}

/// What an accepted connection takes up, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    /// One of the connections that the transport allows.
    pub _permit: OwnedSemaphorePermit,
    /// One of those of its address; unknown when the application's server accepted it.
    pub _caller: Option<Arc<Caller>>,
}

impl Registry {
    /// Remembers `connection` as long as its user keeps it.
    pub fn hold(&self, connection: Box<dyn Connection>, place: Option<Place>) -> Box<dyn Connection> {
        let held = Arc::new(Held { connection, _place: place });
        let mut all = self.all();
        if all.len() == all.capacity() {
            all.retain(|other| other.strong_count() > 0);
        }
        all.push(Arc::downgrade(&held));
        Box::new(Handle(held))
    }

    /// Ends every connection.
    pub fn close(&self) {
        let all = std::mem::take(&mut *self.all());
        for held in all.iter().filter_map(Weak::upgrade) {
            held.connection.close(CloseReason::Done);
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Weak<Held>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the user of a connection has. Dropping it closes.
#[derive(Debug)]
struct Handle(Arc<Held>);

#[async_trait]
impl Connection for Handle {
    async fn open(&self) -> Result<ByteStream, TransportError> {
        self.0.connection.open().await
    }

    async fn accept(&self) -> Result<ByteStream, TransportError> {
        self.0.connection.accept().await
    }

    fn channel_binding(&self) -> [u8; 32] {
        self.0.connection.channel_binding()
    }

    async fn closed(&self) -> TransportError {
        self.0.connection.closed().await
    }

    fn close(&self, reason: CloseReason) {
        self.0.connection.close(reason);
    }
}
