//! From the errors of reqwest, rustls and sockets to the contract's.

use std::error::Error;

use sync_core::{
    PeerAddress,
    transport::{TransportError, TransportErrorKind},
};

/// Why a request to `address` failed.
pub(crate) fn request_failed(address: &PeerAddress, error: reqwest::Error) -> TransportError {
    let chain = chain(&error);
    let (kind, advice) = if chain.contains("certificate") || chain.contains("UnknownIssuer") {
        let advice = "its TLS certificate is not trusted; give the builder the root certificate that signed it";
        (TransportErrorKind::Refused, advice)
    } else if error.is_timeout() {
        (TransportErrorKind::TimedOut, "it does not answer; is a firewall in between?")
    } else if error.is_connect() {
        (TransportErrorKind::Unreachable, "nobody listens there; is the node up?")
    } else if error.is_builder() {
        (TransportErrorKind::UnsupportedAddress, "it is no address that can be asked; write it as https://host/path")
    } else {
        (TransportErrorKind::Refused, "what answers there speaks no HTTP")
    };
    // The URL is in the text already.
    TransportError::because(kind, format!("dialling {address}: {advice}"), error.without_url())
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// `what` was asked of a transport that was closed.
pub(crate) fn closed(what: &str) -> TransportError {
    TransportError::new(TransportErrorKind::Closed, format!("{what}: this HTTP transport was closed; build another"))
}
