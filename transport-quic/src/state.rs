//! What is kept between starts: the certificate's key and the port.

use std::fmt;

use serde::{Deserialize, Serialize};
use sync_core::transport::{TransportError, TransportErrorKind, TransportState};

/// The kind of this transport's [`TransportState`], with the version of its format.
pub const STATE_KIND: &str = "quic/1";

/// The state, in clear. In `quic/1` it is the postcard encoding of these fields in this order.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QuicState {
    /// Where it listened last; 0 when it never did.
    pub port: u16,
    /// The private key of the certificate, PKCS#8.
    pub certificate_key: Vec<u8>,
}

impl QuicState {
    /// Reads what was saved.
    pub fn decode(saved: &TransportState) -> Result<Self, TransportError> {
        if saved.kind != STATE_KIND {
            return Err(TransportError::new(
                TransportErrorKind::StateMismatch,
                format!(
                    "the saved state is of kind `{}`, this transport writes `{STATE_KIND}`; register it under another \
                     name, or remove the saved state",
                    saved.kind
                ),
            ));
        }
        postcard::from_bytes(&saved.bytes).map_err(|cause| unreadable(cause.into()))
    }

    /// What is to be saved.
    pub fn encode(&self) -> TransportState {
        let bytes = postcard::to_stdvec(self).expect("numbers and bytes always encode");
        TransportState { kind: STATE_KIND.into(), bytes }
    }

    /// The key as rcgen has it.
    pub fn key_pair(&self) -> Result<rcgen::KeyPair, TransportError> {
        rcgen::KeyPair::try_from(self.certificate_key.as_slice()).map_err(|cause| unreadable(cause.into()))
    }
}

fn unreadable(cause: Box<dyn std::error::Error + Send + Sync>) -> TransportError {
    TransportError::because(
        TransportErrorKind::StateMismatch,
        format!("the saved state says `{STATE_KIND}` but cannot be read; remove it, and a new key and port are chosen"),
        cause,
    )
}

impl fmt::Debug for QuicState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicState").field("port", &self.port).finish_non_exhaustive()
    }
}
