//! Dialling.

use iroh::{Endpoint, EndpointAddr};
use sync_core::{
    PeerAddress,
    transport::{Connection, TransportError, TransportErrorKind},
};
use tokio::time::timeout;

use crate::{ALPN, connection::IrohConnection, error::dial_failed, limits::DIAL_TIMEOUT, open::OpenConnections};

/// Opens a connection to `target`, which was parsed from `address`, within [`DIAL_TIMEOUT`].
pub(crate) async fn dial(
    endpoint: &Endpoint,
    open: &OpenConnections,
    address: &PeerAddress,
    target: EndpointAddr,
) -> Result<Box<dyn Connection>, TransportError> {
    match timeout(DIAL_TIMEOUT, endpoint.connect(target, ALPN)).await {
        Ok(Ok(connection)) => Ok(Box::new(IrohConnection::new(connection, open)?)),
        Ok(Err(cause)) => Err(dial_failed(address, cause)),
        Err(_) => Err(TransportError::new(
            TransportErrorKind::TimedOut,
            format!(
                "dialling {address}: no answer within {} s; is the node running there, and does UDP pass the firewall?",
                DIAL_TIMEOUT.as_secs()
            ),
        )),
    }
}
