//! From iroh's errors to the contract's.

use std::fmt;

use iroh::endpoint::{ConnectError, ConnectWithOptsError, ConnectingError, ConnectionError, TransportErrorCode};
use sync_core::transport::{TransportError, TransportErrorKind};

/// Why a dial to `target` failed.
pub(crate) fn dial_failed(target: &dyn fmt::Display, cause: ConnectError) -> TransportError {
    use TransportErrorKind::*;
    let (kind, advice) = match &cause {
        ConnectError::Connect { source, .. } => match source {
            ConnectWithOptsError::SelfConnect { .. } => (UnsupportedAddress, "it is the address of this very node"),
            ConnectWithOptsError::NoAddress { .. } => {
                (Unreachable, "nobody knows where that node is; add `ip=` or `relay=` to the address")
            }
            ConnectWithOptsError::EndpointClosed { .. } => (Closed, "the endpoint was closed"),
            ConnectWithOptsError::LocallyRejected { .. } => {
                (Refused, "a hook of the application's endpoint forbids it")
            }
            _ => (Unreachable, "this machine cannot send there"),
        },
        ConnectError::Connecting { source, .. } => match source {
            ConnectingError::ConnectionError { source, .. } => handshake_ended(source),
            ConnectingError::HandshakeFailure { .. } => (Refused, "what answers there is not the node of that id"),
            ConnectingError::LocallyRejected { .. } => (Refused, "a hook of the application's endpoint forbids it"),
            _ => (Unreachable, "the endpoint is shutting down"),
        },
        ConnectError::Connection { source, .. } => handshake_ended(source),
        _ => (Unreachable, "the endpoint could not begin"),
    };
    TransportError::because(kind, format!("dialling {target}: {advice}"), cause)
}

fn handshake_ended(cause: &ConnectionError) -> (TransportErrorKind, &'static str) {
    use TransportErrorKind::*;
    match cause {
        ConnectionError::TimedOut => (TimedOut, "is the node running there, and does UDP pass the firewall?"),
        ConnectionError::ConnectionClosed(close) if close.error_code == TransportErrorCode::CONNECTION_REFUSED => {
            (Refused, "it does not accept connections now")
        }
        ConnectionError::ConnectionClosed(_) | ConnectionError::TransportError(_) => {
            (Refused, "what answers there is not the node of that id, or speaks no Syncline of our version")
        }
        ConnectionError::VersionMismatch => (Refused, "what answers there speaks another version of QUIC"),
        ConnectionError::ApplicationClosed(_) | ConnectionError::Reset => (Refused, "it closed the connection"),
        ConnectionError::LocallyClosed => (Closed, "the transport was closed meanwhile"),
        ConnectionError::CidsExhausted => (Unreachable, "too many connections are open here"),
    }
}

/// Why an established connection ended, met while doing `attempt`.
pub(crate) fn connection_ended(attempt: &str, cause: ConnectionError) -> TransportError {
    use TransportErrorKind::*;
    let kind = match &cause {
        ConnectionError::TimedOut => TimedOut,
        ConnectionError::LocallyClosed => Closed,
        // Never the other end's doing: so iroh says that its endpoint was closed.
        ConnectionError::TransportError(error) if error.code == TransportErrorCode::INTERNAL_ERROR => Closed,
        ConnectionError::TransportError(_) | ConnectionError::VersionMismatch => Protocol,
        ConnectionError::ConnectionClosed(_)
        | ConnectionError::ApplicationClosed(_)
        | ConnectionError::Reset
        | ConnectionError::CidsExhausted => ConnectionLost,
    };
    TransportError::because(kind, format!("{attempt}: the connection has ended"), cause)
}

/// The transport is closed: nothing can be done with it any more.
pub(crate) fn closed(attempt: &str) -> TransportError {
    TransportError::new(
        TransportErrorKind::Closed,
        format!("{attempt}: the iroh transport was closed; build it again to go on"),
    )
}
