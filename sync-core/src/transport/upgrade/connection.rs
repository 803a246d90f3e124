//! The handle of an upgraded connection.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
};

use super::{
    MAX_OPEN_STREAMS, Role,
    driver::{Command, Driver, Ends},
    noise::NoisePipe,
    stream,
};
use crate::transport::{ByteStream, CloseReason, Connection, TransportError, TransportErrorKind};

/// How a connection ended.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// This end closed it.
    Here(CloseReason),
    /// The other end closed it and said why.
    There(CloseReason),
    /// The pipe broke or brought nonsense.
    Lost(String),
    /// The other end was silent for this long.
    Silent(Duration),
}

pub(super) struct Upgraded {
    binding: [u8; 32],
    commands: mpsc::UnboundedSender<Command>,
    accepted: Mutex<mpsc::Receiver<yamux::Stream>>,
    end: watch::Receiver<Option<End>>,
    permits: Arc<Semaphore>,
}

impl Upgraded {
    /// Starts the driver's task. It ends with the connection, or when the handle is dropped.
    pub fn start<P>(pipe: Arc<NoisePipe<P>>, role: Role, binding: [u8; 32]) -> Self
    where
        P: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (driver, Ends { commands, accepted, end }) = Driver::new(pipe, role);
        tokio::spawn(driver.run());
        let permits = Arc::new(Semaphore::new(MAX_OPEN_STREAMS));
        Self { binding, commands, accepted: Mutex::new(accepted), end, permits }
    }

    fn wrap(&self, stream: yamux::Stream, permit: Option<OwnedSemaphorePermit>) -> ByteStream {
        stream::wrap(stream, self.end.clone(), permit)
    }
}

#[async_trait]
impl Connection for Upgraded {
    async fn open(&self) -> Result<ByteStream, TransportError> {
        let permit = self.permits.clone().acquire_owned();
        let permit = tokio::select! {
            permit = permit => permit.expect("the semaphore is never closed"),
            error = self.closed() => return Err(error),
        };
        let (reply, stream) = oneshot::channel();
        if self.commands.send(Command::Open(reply)).is_err() {
            return Err(self.closed().await);
        }
        match stream.await {
            Ok(stream) => Ok(self.wrap(stream, Some(permit))),
            Err(_) => Err(self.closed().await),
        }
    }

    async fn accept(&self) -> Result<ByteStream, TransportError> {
        let stream = self.accepted.lock().await.recv().await;
        match stream {
            Some(stream) => Ok(self.wrap(stream, None)),
            None => Err(self.closed().await),
        }
    }

    fn channel_binding(&self) -> [u8; 32] {
        self.binding
    }

    async fn closed(&self) -> TransportError {
        match self.end.clone().wait_for(Option::is_some).await {
            Ok(end) => end.as_ref().expect("this was waited for").into(),
            Err(_) => TransportError::new(TransportErrorKind::ConnectionLost, "the connection's task ended early"),
        }
    }

    fn close(&self, reason: CloseReason) {
        // When the driver is gone the connection has ended already.
        self.commands.send(Command::Close(reason)).ok();
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upgraded({})", data_encoding::HEXLOWER.encode(&self.binding[..5]))
    }
}

impl From<&End> for TransportError {
    fn from(end: &End) -> Self {
        let (kind, context) = match end {
            End::Here(reason) => (TransportErrorKind::ConnectionLost, format!("closed at this end: {reason}")),
            End::There(CloseReason::Refused) => {
                (TransportErrorKind::Refused, "the other end refused the connection".into())
            }
            End::There(reason) => (TransportErrorKind::ConnectionLost, format!("closed at the other end: {reason}")),
            End::Lost(cause) => (TransportErrorKind::ConnectionLost, format!("the pipe broke: {cause}")),
            End::Silent(time) => {
                (TransportErrorKind::TimedOut, format!("nothing came from the other end for {} s", time.as_secs()))
            }
        };
        Self::new(kind, context)
    }
}
