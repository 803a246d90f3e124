//! What is kept between starts: the port. The key is the node's.

use serde::{Deserialize, Serialize};
use sync_core::transport::{TransportError, TransportErrorKind, TransportState};

/// The kind of this transport's [`TransportState`], with the version of its format.
pub const STATE_KIND: &str = "iroh/1";

/// The state, in clear. In `iroh/1` it is the postcard encoding of this field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IrohState {
    /// Where the endpoint was bound last; 0 when it never was.
    pub port: u16,
}

impl IrohState {
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
        postcard::from_bytes(&saved.bytes).map_err(|cause| {
            let context =
                format!("the saved state says `{STATE_KIND}` but cannot be read; remove it, and a new port is chosen");
            TransportError::because(TransportErrorKind::StateMismatch, context, cause)
        })
    }

    /// What is to be saved.
    pub fn encode(self) -> TransportState {
        let bytes = postcard::to_stdvec(&self).expect("a number always encodes");
        TransportState { kind: STATE_KIND.into(), bytes }
    }
}
