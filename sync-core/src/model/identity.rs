//! Identities: Ed25519 keys (RFC 8032), one newtype for each part they play.

use std::{fmt, str::FromStr};

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// Why a text or some bytes are not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 64 hexadecimal digits.
    #[error("`{0}` is not an id: 64 hexadecimal digits are expected")]
    Malformed(String),
    /// The bytes are no point on the curve, or one of small order.
    #[error("the bytes are not an Ed25519 public key")]
    NotAKey,
}

/// An Ed25519 secret key. Never shown by `Debug`, wiped when dropped.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// The key with this seed. Where the 32 bytes come from is the caller's matter: nothing in
    /// the model draws randomness.
    pub fn from_bytes(mut seed: [u8; 32]) -> Self {
        let key = Self(SigningKey::from_bytes(&seed));
        seed.zeroize();
        key
    }

    /// A new key from the operating system's randomness.
    #[cfg(feature = "manager")]
    #[allow(clippy::disallowed_methods)]
    pub fn generate() -> Self {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).expect("the operating system has randomness");
        Self::from_bytes(seed)
    }

    /// The seed: what is written to a key file. Handle with care.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public key.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs `message`, which must begin with one of the domains of [`super::domain`]: nobody
    /// obtains a signature over bytes of his choosing.
    pub(crate) fn sign(&self, message: &[u8]) -> Signature {
        #[cfg(any(test, feature = "testing"))]
        if stand_in::is_on() {
            return stand_in::sign(&self.public(), message);
        }
        Signature(self.0.sign(message).to_bytes())
    }
}

/// A keyed hash in the place of Ed25519, on the thread of a running simulation only: most
/// simulations would be spent on curve arithmetic that shows nothing new. Anybody can forge it, so nothing but
/// the simulator can switch it on.
#[cfg(any(test, feature = "testing"))]
pub(crate) mod stand_in {
    use std::cell::Cell;

    use super::{PublicKey, Signature};

    thread_local! {
        static ON: Cell<bool> = const { Cell::new(false) };
    }

    /// Switches the stand-in off again when it is dropped.
    #[derive(Debug)]
    pub(crate) struct Guard(());

    impl Guard {
        /// Switches it on, on this thread.
        pub(crate) fn switch_on() -> Self {
            ON.set(true);
            Self(())
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            ON.set(false);
        }
    }

    /// Whether it is on, on this thread.
    pub(crate) fn is_on() -> bool {
        ON.get()
    }

    pub(super) fn sign(key: &PublicKey, message: &[u8]) -> Signature {
        let mut hasher = blake3::Hasher::new_keyed(&key.0);
        hasher.update(message);
        let mut bytes = [0; 64];
        hasher.finalize_xof().fill(&mut bytes);
        Signature(bytes)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {:?})", self.public())
    }
}

/// An Ed25519 public key: 32 bytes, compressed. Not necessarily a valid point: verification says so.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Verifies `signature` over `message` strictly (`verify_strict`): small-order keys and
    /// non-canonical encodings are refused, so that no two nodes can disagree.
    pub(crate) fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        self.point().verify(message, signature)
    }

    /// The key made ready for many verifications.
    pub(crate) fn point(&self) -> PublicPoint {
        #[cfg(any(test, feature = "testing"))]
        if stand_in::is_on() {
            return PublicPoint { bytes: *self, key: None };
        }
        PublicPoint {
            #[cfg(any(test, feature = "testing"))]
            bytes: *self,
            key: VerifyingKey::from_bytes(&self.0).ok(),
        }
    }

    /// The first ten hexadecimal digits, for logs and tables.
    pub fn short(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0[..5])
    }
}

/// A public key, decompressed: that costs an eighth of a verification, so it is worth keeping.
#[derive(Debug, Clone)]
pub(crate) struct PublicPoint {
    #[cfg(any(test, feature = "testing"))]
    bytes: PublicKey,
    /// None where the bytes are no point: nothing verifies.
    key: Option<VerifyingKey>,
}

impl PublicPoint {
    /// See [`PublicKey::verify`].
    pub(crate) fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        #[cfg(any(test, feature = "testing"))]
        if stand_in::is_on() {
            return stand_in::sign(&self.bytes, message) == *signature;
        }
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        self.key.as_ref().is_some_and(|key| key.verify_strict(message, &signature).is_ok())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        data_encoding::HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| KeyError::Malformed(text.into()))
    }
}

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0[..5]))
    }
}

impl Serialize for Signature {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (low, high) = self.0.split_at(32);
        (<[u8; 32]>::try_from(low).expect("half of 64 is 32"), <[u8; 32]>::try_from(high).expect("half of 64 is 32"))
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (low, high) = <([u8; 32], [u8; 32])>::deserialize(deserializer)?;
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&low);
        bytes[32..].copy_from_slice(&high);
        Ok(Self(bytes))
    }
}

macro_rules! role {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub PublicKey);

        impl $name {
            /// The 32 bytes of the public key.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0.0
            }

            /// The first ten hexadecimal digits, for logs and tables.
            pub fn short(&self) -> String {
                self.0.short()
            }
        }

        impl From<[u8; 32]> for $name {
            fn from(bytes: [u8; 32]) -> Self {
                Self(PublicKey(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = KeyError;

            fn from_str(text: &str) -> Result<Self, KeyError> {
                text.parse().map(Self)
            }
        }
    };
}

role! {
    /// A node, the same on every transport.
    PeerId
}
role! {
    /// A replica: the public key of its owner.
    ReplicaId
}
role! {
    /// A signer of entries. A node's default author is its own key.
    AuthorId
}

impl From<PeerId> for AuthorId {
    fn from(peer: PeerId) -> Self {
        Self(peer.0)
    }
}

impl From<ReplicaId> for AuthorId {
    /// The owner of a replica, as an author.
    fn from(replica: ReplicaId) -> Self {
        Self(replica.0)
    }
}

/// 32 bytes of BLAKE3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hash(pub [u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0[..5]))
    }
}

impl FromStr for Hash {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        text.parse::<PublicKey>().map(|key| Self(key.0))
    }
}
