//! [`Protocol`], the handler for a `Router` of the application.

use std::sync::Arc;

use iroh::{
    endpoint::{Accepting, Connection},
    protocol::{AcceptError, ProtocolHandler},
};

use crate::{limits, listen::Gate, open::OpenConnections};

/// Accepts connections for a mounted [`IrohTransport`](crate::IrohTransport).
///
/// Give it to the router under [`ALPN`](crate::ALPN). Until the transport listens, and when it stopped or was closed,
/// it refuses; the application's other protocols notice nothing.
#[derive(Debug, Clone)]
pub struct Protocol {
    pub(crate) gate: Arc<Gate>,
    pub(crate) open: Arc<OpenConnections>,
}

impl ProtocolHandler for Protocol {
    async fn on_accepting(&self, accepting: Accepting) -> Result<Connection, AcceptError> {
        if !self.gate.is_open() || self.open.count() >= limits::MAX_CONNECTIONS {
            return Err(AcceptError::from_err(NotListening));
        }
        Ok(accepting.await?)
    }

    /// Returns at once: whoever takes the connection from the queue holds it from now on, so that
    /// it does not end with this call.
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        self.gate.pass(connection, &self.open);
        Ok(())
    }

    /// The router is going to close the endpoint, and with it all connections.
    async fn shutdown(&self) {
        self.open.close_all();
    }
}

/// Why a mounted transport refused.
#[derive(Debug, thiserror::Error)]
#[error("Syncline does not accept connections now")]
struct NotListening;
