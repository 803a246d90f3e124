//! Dialling: name resolution, racing the answers, the dialling socket.

use std::{io, net::SocketAddr, sync::Arc};

use quinn::{ClientConfig, Endpoint, TokioRuntime};
use sync_core::{
    PeerAddress,
    transport::{Connection, TransportError, TransportErrorKind},
};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::{
    address::Target,
    config::{QuicConfig, SERVER_NAME},
    connection::QuicConnection,
    error::{closed, dial_failed, dial_impossible},
    limits,
    listen::wind_down,
    socket::{self, ReleasableSocket},
};

/// The dialling side: nothing until the first dial, then a socket, until it is closed.
pub(crate) enum Dialler {
    /// Nothing was dialled yet.
    Unbound,
    /// Ready to dial.
    Bound(DialSocket),
    /// No more.
    Closed,
}

/// A client endpoint, and the task that ends it when `_open` is dropped or its socket has failed.
pub(crate) struct DialSocket {
    endpoint: Endpoint,
    _open: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Dialler {
    /// The endpoint, made now if there is none.
    pub fn endpoint(&mut self, config: &QuicConfig) -> Result<Endpoint, TransportError> {
        match self {
            Self::Bound(socket) if !socket.task.is_finished() => Ok(socket.endpoint.clone()),
            Self::Closed => Err(closed("dialling")),
            // A socket that failed, as one may when a machine wakes up, is replaced.
            Self::Unbound | Self::Bound(_) => {
                let socket = DialSocket::bind(config).map_err(|cause| {
                    let context = "dialling: no UDP socket could be opened on this machine";
                    TransportError::because(TransportErrorKind::Unreachable, context, cause)
                })?;
                let endpoint = socket.endpoint.clone();
                *self = Self::Bound(socket);
                Ok(endpoint)
            }
        }
    }

    /// Ends all that was dialled. The task that is returned, if any, is done when the socket is free.
    pub fn close(&mut self) -> Option<JoinHandle<()>> {
        match std::mem::replace(self, Self::Closed) {
            Self::Bound(socket) => Some(socket.task),
            Self::Unbound | Self::Closed => None,
        }
    }
}

impl DialSocket {
    fn bind(config: &QuicConfig) -> io::Result<Self> {
        let socket = ReleasableSocket::new(socket::bind(None, 0)?)?;
        let endpoint =
            Endpoint::new_with_abstract_socket(config.endpoint.clone(), None, socket.clone(), Arc::new(TokioRuntime))?;
        let (open, ended) = oneshot::channel::<()>();
        let held = endpoint.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                // Nothing is ever sent: this resolves when the sender is dropped.
                _ = ended => {}
                // Without a server's settings nobody ever arrives: this resolves when the endpoint has failed.
                _ = held.accept() => tracing::warn!("the socket for dialling failed; the next dial takes another"),
            }
            wind_down(&held, &socket).await;
        });
        Ok(Self { endpoint, _open: open, task })
    }
}

/// Opens a connection to `address` within [`limits::DIAL_TIMEOUT`].
pub(crate) async fn dial(
    endpoint: Endpoint,
    config: &ClientConfig,
    address: &PeerAddress,
) -> Result<Box<dyn Connection>, TransportError> {
    let target = Target::parse(address)?;
    let attempt = async {
        let candidates = resolve(&target).await?;
        race(&endpoint, config, &target, candidates).await
    };
    match timeout(limits::DIAL_TIMEOUT, attempt).await {
        Ok(connection) => Ok(Box::new(QuicConnection::new(connection?)?)),
        Err(_) => Err(TransportError::new(
            TransportErrorKind::TimedOut,
            format!(
                "dialling {target}: no answer within {} s; is a node listening there, and does UDP pass the firewall?",
                limits::DIAL_TIMEOUT.as_secs()
            ),
        )),
    }
}

async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, TransportError> {
    let (host, port) = match target {
        Target::Socket(socket) => return Ok(vec![*socket]),
        Target::Name { host, port } => (host.as_str(), *port),
    };
    let unreachable = format!("dialling {target}: the name has no address; check its spelling and the name server");
    match tokio::net::lookup_host((host, port)).await {
        Ok(found) => {
            let candidates: Vec<SocketAddr> = found.take(limits::MAX_RESOLVED).collect();
            match candidates.is_empty() {
                true => Err(TransportError::new(TransportErrorKind::Unreachable, unreachable)),
                false => Ok(candidates),
            }
        }
        Err(cause) => Err(TransportError::because(TransportErrorKind::Unreachable, unreachable, cause)),
    }
}

/// Tries the candidates, each a little after the one before or at once when that failed. The first that
/// answers wins; the error is that of the last to fail.
async fn race(
    endpoint: &Endpoint,
    config: &ClientConfig,
    target: &Target,
    candidates: Vec<SocketAddr>,
) -> Result<quinn::Connection, TransportError> {
    let mut waiting = candidates.into_iter();
    let mut under_way = JoinSet::new();
    let mut last_error = None;
    loop {
        if let Some(candidate) = waiting.next() {
            match endpoint.connect_with(config.clone(), candidate, SERVER_NAME) {
                Ok(connecting) => _ = under_way.spawn(connecting),
                Err(cause) => {
                    last_error = Some(dial_impossible(target, cause));
                    continue;
                }
            }
        }
        let finished = tokio::select! {
            finished = under_way.join_next() => finished,
            () = sleep(limits::DIAL_STAGGER), if waiting.len() > 0 => continue,
        };
        match finished {
            Some(Ok(Ok(connection))) => return Ok(connection),
            Some(Ok(Err(cause))) => last_error = Some(dial_failed(target, cause)),
            Some(Err(panic)) => {
                let context = format!("dialling {target}: the attempt broke down");
                last_error = Some(TransportError::because(TransportErrorKind::Unreachable, context, panic));
            }
            None if waiting.len() > 0 => {}
            None => return Err(last_error.expect("every candidate that did not win left an error")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Windows;

    #[tokio::test]
    async fn a_socket_that_failed_is_replaced_at_the_next_dial() {
        let config = QuicConfig::new(&rcgen::KeyPair::generate().unwrap(), Windows::default()).unwrap();
        let mut dialler = Dialler::Unbound;
        let first = dialler.endpoint(&config).unwrap();
        assert_eq!(dialler.endpoint(&config).unwrap().local_addr().unwrap(), first.local_addr().unwrap());
        // To whoever holds it, an endpoint that was closed looks like one whose socket failed.
        first.close(quinn::VarInt::from_u32(0), b"");
        let Dialler::Bound(socket) = &mut dialler else { panic!("it was bound") };
        (&mut socket.task).await.unwrap();
        let second = dialler.endpoint(&config).unwrap();
        assert_ne!(second.local_addr().unwrap(), first.local_addr().unwrap());
    }
}
