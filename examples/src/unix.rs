//! A custom transport in a page: Unix sockets, at addresses `unix:/path/of/socket`.
//!
//! A transport that has only a pipe of bytes hands it to [`upgrade`] and has an encrypted
//! connection of many streams. What is left is to dial, to listen, and to end what was begun.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use async_trait::async_trait;
use sync_core::{
    PeerAddress,
    transport::{
        ByteStream, CloseReason, Connection, DIAL_DEADLINE, Incoming, SyncTransport, TransportError,
        TransportErrorKind as Kind,
        upgrade::{Role, upgrade},
    },
};
use tokio::{
    net::{UnixListener, UnixStream},
    task::{AbortHandle, JoinSet},
};

/// How many callers may be shaking hands at a time.
const MAX_HANDSHAKES: usize = 32;

/// Dials Unix sockets, and listens at one.
#[derive(Debug)]
pub struct UnixTransport {
    path: PathBuf,
    listener: Mutex<Listening>,
    open: Arc<Mutex<Vec<Weak<dyn Connection>>>>,
}

#[derive(Debug)]
enum Listening {
    Idle,
    Open(AbortHandle),
    Closed,
}

impl UnixTransport {
    /// A transport that will listen at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), listener: Mutex::new(Listening::Idle), open: Arc::default() }
    }

    fn listening(&self) -> MutexGuard<'_, Listening> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, kind: Kind, what: &str) -> TransportError {
        TransportError::new(kind, format!("{what} at {}", self.path.display()))
    }

    fn end(&self) {
        if let Listening::Open(task) = std::mem::replace(&mut *self.listening(), Listening::Closed) {
            task.abort();
            let _ = std::fs::remove_file(&self.path);
        }
        for connection in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if let Some(connection) = connection.upgrade() {
                connection.close(CloseReason::Done);
            }
        }
    }
}

/// Makes a connection of a pipe, and remembers it so that it ends with the transport.
async fn connect(
    open: &Mutex<Vec<Weak<dyn Connection>>>,
    pipe: UnixStream,
    role: Role,
) -> Result<Box<dyn Connection>, TransportError> {
    let connection: Arc<dyn Connection> = upgrade(pipe, role).await?.into();
    let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
    open.retain(|known| known.strong_count() > 0);
    open.push(Arc::downgrade(&connection));
    Ok(Box::new(Remembered(connection)))
}

#[async_trait]
impl SyncTransport for UnixTransport {
    fn schemes(&self) -> &[&'static str] {
        &["unix"]
    }

    async fn dial(&self, address: &PeerAddress) -> Result<Box<dyn Connection>, TransportError> {
        if matches!(*self.listening(), Listening::Closed) {
            return Err(self.error(Kind::Closed, "the transport was closed"));
        }
        if address.scheme() != "unix" || address.url().path().is_empty() {
            let context = format!("{address} is no Unix socket; write it as unix:/path/of/socket");
            return Err(TransportError::new(Kind::UnsupportedAddress, context));
        }
        let dialled = async {
            let pipe = UnixStream::connect(address.url().path()).await.map_err(|cause| {
                TransportError::because(Kind::Unreachable, format!("nobody listens at {address}"), cause)
            })?;
            connect(&self.open, pipe, Role::Dialer).await
        };
        let timed_out = || TransportError::new(Kind::TimedOut, format!("{address} does not answer"));
        tokio::time::timeout(DIAL_DEADLINE, dialled).await.unwrap_or_else(|_| Err(timed_out()))
    }

    async fn listen(&self, incoming: Incoming) -> Result<Vec<PeerAddress>, TransportError> {
        let mut listening = self.listening();
        match *listening {
            Listening::Idle => {}
            Listening::Open(_) => return Err(self.error(Kind::AlreadyListening, "it listens already")),
            Listening::Closed => return Err(self.error(Kind::Closed, "the transport was closed")),
        }
        let cannot = |cause| TransportError::because(Kind::CannotListen, self.path.display().to_string(), cause);
        let listener = UnixListener::bind(&self.path).map_err(cannot)?;
        let open = self.open.clone();
        let accept = async move {
            let mut handshakes = JoinSet::new();
            while let Ok((pipe, _)) = listener.accept().await {
                while handshakes.try_join_next().is_some() {}
                if handshakes.len() < MAX_HANDSHAKES {
                    let (open, incoming) = (open.clone(), incoming.clone());
                    handshakes.spawn(async move {
                        if let Ok(connection) = connect(&open, pipe, Role::Listener).await {
                            incoming.offer(connection);
                        }
                    });
                }
            }
        };
        *listening = Listening::Open(tokio::spawn(accept).abort_handle());
        let address = format!("unix:{}", self.path.display());
        Ok(vec![address.parse().expect("a path makes an address")])
    }

    async fn stop_listening(&self) -> Result<(), TransportError> {
        let mut listening = self.listening();
        match std::mem::replace(&mut *listening, Listening::Idle) {
            Listening::Open(task) => {
                task.abort();
                let _ = std::fs::remove_file(&self.path);
                Ok(())
            }
            Listening::Idle => Err(self.error(Kind::NotListening, "it does not listen")),
            Listening::Closed => {
                *listening = Listening::Closed;
                Err(self.error(Kind::Closed, "the transport was closed"))
            }
        }
    }

    async fn close(&self) {
        self.end();
    }
}

impl Drop for UnixTransport {
    fn drop(&mut self) {
        self.end();
    }
}

/// A connection that its transport can end.
#[derive(Debug)]
struct Remembered(Arc<dyn Connection>);

#[async_trait]
impl Connection for Remembered {
    async fn open(&self) -> Result<ByteStream, TransportError> {
        self.0.open().await
    }

    async fn accept(&self) -> Result<ByteStream, TransportError> {
        self.0.accept().await
    }

    fn channel_binding(&self) -> [u8; 32] {
        self.0.channel_binding()
    }

    async fn closed(&self) -> TransportError {
        self.0.closed().await
    }

    fn close(&self, reason: CloseReason) {
        self.0.close(reason);
    }
}
