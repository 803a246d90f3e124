//! From quinn's errors to the contract's.

use quinn::{ConnectError, ConnectionError, TransportErrorCode};
use sync_core::transport::{TransportError, TransportErrorKind};

/// Why a dial to `target` ended in `cause`.
pub(crate) fn dial_failed(target: &dyn std::fmt::Display, cause: ConnectionError) -> TransportError {
    use TransportErrorKind::*;
    let (kind, advice) = match &cause {
        ConnectionError::TimedOut => (TimedOut, "is a node listening there, and does UDP pass the firewall?"),
        ConnectionError::ConnectionClosed(close) if close.error_code == TransportErrorCode::CONNECTION_REFUSED => {
            (Refused, "it does not accept connections now")
        }
        ConnectionError::ConnectionClosed(_) | ConnectionError::TransportError(_) => {
            (Refused, "what answers there is not a Syncline node that speaks our version")
        }
        ConnectionError::VersionMismatch => (Refused, "what answers there speaks another version of QUIC"),
        ConnectionError::ApplicationClosed(_) | ConnectionError::Reset => (Refused, "it closed the connection"),
        ConnectionError::LocallyClosed => (Closed, "the transport was closed meanwhile"),
        ConnectionError::CidsExhausted => (Unreachable, "too many connections are open here"),
    };
    TransportError::because(kind, format!("dialling {target}: {advice}"), cause)
}

/// Why a dial to `target` could not begin.
pub(crate) fn dial_impossible(target: &dyn std::fmt::Display, cause: ConnectError) -> TransportError {
    let kind = match cause {
        ConnectError::EndpointStopping => TransportErrorKind::Closed,
        _ => TransportErrorKind::Unreachable,
    };
    TransportError::because(kind, format!("dialling {target}: this machine cannot send there"), cause)
}

/// Why an established connection ended, met while doing `attempt`.
pub(crate) fn connection_ended(attempt: &str, cause: ConnectionError) -> TransportError {
    use TransportErrorKind::*;
    let kind = match &cause {
        ConnectionError::TimedOut => TimedOut,
        ConnectionError::LocallyClosed => Closed,
        // Never the other end's doing: so quinn says that its endpoint has ended.
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
        format!("{attempt}: the QUIC transport was closed; build it again to go on"),
    )
}
