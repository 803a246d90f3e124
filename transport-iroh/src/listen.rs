//! The gate that every accepted connection passes, and admission to it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use iroh::{
    Endpoint,
    endpoint::{Connection as IrohConn, Incoming as Arrived},
};
use sync_core::transport::{CloseReason, Incoming, TransportError, TransportErrorKind};
use tokio::{sync::oneshot, task::JoinSet, time::timeout};

use crate::{
    connection::{IrohConnection, close},
    error::closed,
    limits,
    open::OpenConnections,
};

/// Whether connections are accepted, and where they go. Shared by the transport and whoever accepts for it:
/// its own endpoint's task or the application's router.
#[derive(Debug, Default)]
pub(crate) struct Gate(Mutex<GateState>);

#[derive(Debug, Default)]
enum GateState {
    /// Everyone is refused.
    #[default]
    Shut,
    /// Connections go there.
    Open(Incoming),
    /// `listen` was called on a client-only transport: everyone is refused.
    ClientOnly,
    /// No more.
    Closed,
}

impl Gate {
    /// An error when the gate cannot be opened.
    pub fn check_shut(&self) -> Result<(), TransportError> {
        match &*self.state() {
            GateState::Shut => Ok(()),
            GateState::Closed => Err(closed("listening")),
            GateState::Open(_) | GateState::ClientOnly => {
                let context = "listening: this iroh transport listens already; stop it first";
                Err(TransportError::new(TransportErrorKind::AlreadyListening, context))
            }
        }
    }

    /// An error when the transport was closed.
    pub fn check_usable(&self, attempt: &str) -> Result<(), TransportError> {
        match &*self.state() {
            GateState::Closed => Err(closed(attempt)),
            _ => Ok(()),
        }
    }

    /// Opens it: to this queue, or to nobody for a client-only transport.
    pub fn open(&self, incoming: Option<Incoming>) {
        let mut state = self.state();
        if matches!(*state, GateState::Shut) {
            *state = incoming.map_or(GateState::ClientOnly, GateState::Open);
        }
    }

    /// Refuses everyone from now on.
    pub fn shut(&self) -> Result<(), TransportError> {
        let mut state = self.state();
        match &*state {
            GateState::Open(_) | GateState::ClientOnly => {
                *state = GateState::Shut;
                Ok(())
            }
            GateState::Closed => Err(closed("stopping to listen")),
            GateState::Shut => {
                let context = "stopping to listen: this iroh transport does not listen";
                Err(TransportError::new(TransportErrorKind::NotListening, context))
            }
        }
    }

    /// Refuses everyone for good.
    pub fn close(&self) {
        *self.state() = GateState::Closed;
    }

    /// Whether a connection would be taken now.
    pub fn is_open(&self) -> bool {
        matches!(&*self.state(), GateState::Open(incoming) if !incoming.is_closed())
    }

    /// Hands over an established connection, or closes it.
    pub fn pass(&self, connection: IrohConn, open: &OpenConnections) {
        let GateState::Open(incoming) = &*self.state() else {
            return close(&connection, CloseReason::Refused);
        };
        let from = connection.remote_id();
        match IrohConnection::new(connection, open) {
            Ok(connection) => {
                if !incoming.offer(Box::new(connection)) {
                    tracing::warn!(from = %from.fmt_short(), "nobody takes the connection; refused");
                }
            }
            Err(error) => tracing::debug!(from = %from.fmt_short(), %error, "not accepted"),
        }
    }

    fn state(&self) -> MutexGuard<'_, GateState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts for the transport's own endpoint until `ended` resolves, then closes the endpoint and lets go of what
/// would keep its socket.
pub(crate) async fn run(
    endpoint: Endpoint,
    gate: Arc<Gate>,
    open: Arc<OpenConnections>,
    mut ended: oneshot::Receiver<()>,
) {
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut ended => break,
            arrived = endpoint.accept() => match arrived {
                Some(arrived) => admit(arrived, &mut handshakes, &gate, &open),
                None => break,
            },
            Some(_) = handshakes.join_next() => {}
        }
    }
    handshakes.shutdown().await;
    if timeout(limits::CLOSE_GRACE, endpoint.close()).await.is_err() {
        tracing::warn!("the iroh endpoint did not end in time; dropping it");
    }
    open.take_all();
}

/// Refuses, asks to show a return path, or starts the handshake.
fn admit(arrived: Arrived, handshakes: &mut JoinSet<()>, gate: &Arc<Gate>, open: &Arc<OpenConnections>) {
    if !gate.is_open() {
        return arrived.refuse();
    }
    if handshakes.len() >= limits::MAX_HANDSHAKES || open.count() >= limits::MAX_CONNECTIONS {
        tracing::warn!(from = ?arrived.remote_addr(), "too many connections; refused");
        return arrived.refuse();
    }
    if handshakes.len() >= limits::VALIDATE_FROM && !arrived.remote_addr_validated() {
        if let Err(error) = arrived.retry() {
            error.into_incoming().refuse();
        }
        return;
    }
    let (gate, open) = (gate.clone(), open.clone());
    handshakes.spawn(async move {
        let from = arrived.remote_addr();
        match timeout(limits::HANDSHAKE_TIMEOUT, arrived).await {
            Ok(Ok(connection)) => gate.pass(connection, &open),
            Ok(Err(error)) => tracing::debug!(?from, %error, "the handshake failed"),
            Err(_) => tracing::debug!(?from, "the handshake took too long"),
        }
    });
}
