//! What is kept between starts: the port.

use serde::{Deserialize, Serialize};
use sync_core::transport::{TransportError, TransportErrorKind, TransportState};

/// The kind of this transport's [`TransportState`], with the version of its format.
pub const STATE_KIND: &str = "http/1";

/// The state, in clear. In `http/1` it is JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HttpState {
    /// Where it listened last.
    pub port: u16,
}

impl HttpState {
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
        serde_json::from_slice(&saved.bytes).map_err(|cause| {
            TransportError::because(
                TransportErrorKind::StateMismatch,
                format!("the saved state says `{STATE_KIND}` but cannot be read; remove it, and a new port is chosen"),
                cause,
            )
        })
    }

    /// What is to be saved.
    pub fn encode(self) -> TransportState {
        let bytes = serde_json::to_vec(&self).expect("a number always encodes");
        TransportState { kind: STATE_KIND.into(), bytes }
    }
}
