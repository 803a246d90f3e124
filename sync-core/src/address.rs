//! Addresses of peers: URLs typed by their scheme, parsed once at the border.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use url::Url;

/// The longest address that is accepted, in bytes of its text. An iroh address with a relay and
/// eight sockets fits four times over.
pub const MAX_ADDRESS_LEN: usize = 2048;

/// Where a peer can be dialled: a URL whose scheme picks the transport
/// (`quic://host:port`, `https://host/path`, `iroh:<id>?...`, `mem:name`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddress(Url);

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The text is longer than [`MAX_ADDRESS_LEN`].
    #[error("the address has {0} bytes; at most {MAX_ADDRESS_LEN} are allowed")]
    TooLong(usize),
    /// The text is no URL.
    #[error("`{text}` is not an address ({cause}); write it as scheme:rest, like quic://192.0.2.1:4433")]
    Malformed {
        /// What was given.
        text: String,
        /// What the URL parser said.
        cause: url::ParseError,
    },
}

impl PeerAddress {
    /// The scheme, in lower case, without the colon.
    pub fn scheme(&self) -> &str {
        self.0.scheme()
    }

    /// The address as a URL, for the transport that dials it.
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// The address as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for PeerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.len() > MAX_ADDRESS_LEN {
            return Err(AddressError::TooLong(text.len()));
        }
        match Url::parse(text) {
            // Escapes can make it longer than it was given.
            Ok(url) if url.as_str().len() > MAX_ADDRESS_LEN => Err(AddressError::TooLong(url.as_str().len())),
            Ok(url) => Ok(Self(url)),
            Err(cause) => Err(AddressError::Malformed { text: text.into(), cause }),
        }
    }
}

impl From<Url> for PeerAddress {
    fn from(url: Url) -> Self {
        Self(url)
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for PeerAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for PeerAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}
