//! The connections and streams that the application holds, and how they are taken from it.
//!
//! In iroh each connection, and each stream of it, keeps the UDP socket for as long as the
//! application keeps *them*, ended or not. Without more, a forgotten handle would hold a port for
//! ever, though the transport was closed. So the application gets [`Held`] things, and when the
//! endpoint has ended they are taken out of its hands.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use iroh::endpoint::{Connection as IrohConn, ConnectionError};
use sync_core::transport::CloseReason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::close;

/// A connection of iroh, or why it has ended. Streams keep it, so that they can be taken too.
#[derive(Debug)]
pub(crate) struct HeldConnection {
    connection: Mutex<Result<IrohConn, ConnectionError>>,
    streams: Mutex<Vec<Weak<dyn Take>>>,
}

impl HeldConnection {
    /// The connection, or why it has ended. Hold it for no longer than a call takes.
    pub fn get(&self) -> Result<IrohConn, ConnectionError> {
        lock(&self.connection).clone()
    }

    /// Half of a stream of this connection.
    pub fn hold<T: Send + fmt::Debug + 'static>(self: &Arc<Self>, half: T) -> Held<T> {
        let half = Arc::new(Mutex::new(Some(half)));
        let mut streams = lock(&self.streams);
        if streams.len() == streams.capacity() {
            streams.retain(|stream| stream.strong_count() > 0);
        }
        streams.push(Arc::downgrade(&half) as Weak<dyn Take>);
        Held { half, _connection: self.clone() }
    }

    fn is_open(&self) -> bool {
        matches!(&*lock(&self.connection), Ok(connection) if connection.close_reason().is_none())
    }

    /// Lets go of everything of a connection that has ended.
    fn take(&self) {
        let mut connection = lock(&self.connection);
        if let Ok(ended) = &*connection {
            *connection = Err(ended.close_reason().unwrap_or(ConnectionError::LocallyClosed));
        }
        drop(connection);
        for stream in lock(&self.streams).drain(..).filter_map(|stream| stream.upgrade()) {
            stream.take();
        }
    }
}

/// Half of a stream, until it is taken.
#[derive(Debug)]
pub(crate) struct Held<T> {
    half: Arc<Mutex<Option<T>>>,
    _connection: Arc<HeldConnection>,
}

impl<T> Held<T> {
    /// Calls `poll` on it, or says that the connection is gone.
    pub fn poll<R>(&self, poll: impl FnOnce(Pin<&mut T>) -> Poll<io::Result<R>>) -> Poll<io::Result<R>>
    where
        T: Unpin,
    {
        match &mut *lock(&self.half) {
            Some(half) => poll(Pin::new(half)),
            None => Poll::Ready(Err(io::Error::new(io::ErrorKind::NotConnected, "the iroh transport was closed"))),
        }
    }

    /// Calls `with` on it, unless it was taken.
    pub fn with(&self, with: impl FnOnce(&mut T)) {
        if let Some(half) = &mut *lock(&self.half) {
            with(half);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Held<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll(|half| half.poll_read(cx, buffer))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Held<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(|half| half.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|half| half.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|half| half.poll_shutdown(cx))
    }
}

/// What can be taken from whoever holds it.
trait Take: Send + Sync + fmt::Debug {
    fn take(&self);
}

impl<T: Send + fmt::Debug> Take for Mutex<Option<T>> {
    fn take(&self) {
        lock(self).take();
    }
}

/// The connections of a transport, and the dials that may become one.
#[derive(Debug, Default)]
pub(crate) struct OpenConnections {
    known: Mutex<Vec<Weak<HeldConnection>>>,
    dials: Arc<AtomicUsize>,
}

impl OpenConnections {
    /// Lists a connection for as long as somebody holds it or a stream of it.
    pub fn hold(&self, connection: IrohConn) -> Arc<HeldConnection> {
        let held = Arc::new(HeldConnection { connection: Mutex::new(Ok(connection)), streams: Mutex::default() });
        let mut known = lock(&self.known);
        if known.len() == known.capacity() {
            known.retain(|held| held.strong_count() > 0);
        }
        known.push(Arc::downgrade(&held));
        held
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.all().iter().filter(|held| held.is_open()).count()
    }

    /// Whether nothing is open and nothing is being dialled.
    pub fn is_idle(&self) -> bool {
        self.dials.load(Ordering::SeqCst) == 0 && self.count() == 0
    }

    /// Notes a dial until the guard is dropped.
    pub fn dialling(&self) -> Dialling {
        self.dials.fetch_add(1, Ordering::SeqCst);
        Dialling(self.dials.clone())
    }

    /// Ends them all.
    pub fn close_all(&self) {
        for connection in self.all().iter().filter_map(|held| held.get().ok()) {
            close(&connection, CloseReason::Done);
        }
    }

    /// Lets go of all of them, after their endpoint has ended.
    pub fn take_all(&self) {
        for held in self.all() {
            held.take();
        }
    }

    fn all(&self) -> Vec<Arc<HeldConnection>> {
        lock(&self.known).iter().filter_map(Weak::upgrade).collect()
    }
}

/// A dial under way.
pub(crate) struct Dialling(Arc<AtomicUsize>);

impl Drop for Dialling {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
