//! The handshake: who is at the other end of a connection (PROTOCOL.md, "Handshake").
//!
//! Both sides send a hello and then a proof: a signature over both hellos, the signer's role and
//! the connection's channel binding, so that nobody in the middle can forward it to another
//! connection, and nobody's proof passes for the other side's.

use bytes::Bytes;

use super::wire::{Hello, Proof};
use crate::model::{PeerId, SecretKey, domain};

/// Which side of the connection somebody is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Dialled.
    Dialer,
    /// Was dialled.
    Acceptor,
}

impl Role {
    /// The other side.
    pub fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Acceptor,
            Self::Acceptor => Self::Dialer,
        }
    }
}

/// The hellos of a connection as they went over the wire.
#[derive(Debug, Clone)]
pub struct Transcript {
    /// The dialer's hello frame.
    pub dialer: Bytes,
    /// The acceptor's hello frame.
    pub acceptor: Bytes,
    /// The connection's channel binding.
    pub binding: [u8; 32],
}

impl Transcript {
    fn signed_bytes(&self, role: Role) -> Vec<u8> {
        let mut bytes = domain::PROOF.to_vec();
        bytes.push(match role {
            Role::Dialer => 0,
            Role::Acceptor => 1,
        });
        bytes.extend_from_slice(&self.binding);
        bytes.extend_from_slice(blake3::hash(&self.dialer).as_bytes());
        bytes.extend_from_slice(blake3::hash(&self.acceptor).as_bytes());
        bytes
    }

    /// The proof of the node with `key` in `role`.
    pub fn prove(&self, key: &SecretKey, role: Role) -> Proof {
        Proof { signature: key.sign(&self.signed_bytes(role)) }
    }

    /// Whether `proof` shows that `peer` is in `role`.
    pub fn verify(&self, peer: &PeerId, role: Role, proof: &Proof) -> bool {
        peer.0.verify(&self.signed_bytes(role), &proof.signature)
    }
}

/// The version that both sides speak, or none.
pub fn common_version(ours: (u16, u16), theirs: &Hello) -> Option<u16> {
    let newest = ours.1.min(theirs.newest);
    (newest >= ours.0.max(theirs.oldest)).then_some(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript(binding: u8) -> Transcript {
        Transcript {
            dialer: Bytes::from_static(b"hello from the dialer"),
            acceptor: Bytes::from_static(b"hello from the acceptor"),
            binding: [binding; 32],
        }
    }

    #[test]
    fn b61_a_proof_passes_for_its_own_role_connection_and_key_only() {
        let key = SecretKey::from_bytes([1; 32]);
        let peer = PeerId(key.public());
        let proof = transcript(1).prove(&key, Role::Dialer);
        assert!(transcript(1).verify(&peer, Role::Dialer, &proof));
        assert!(!transcript(1).verify(&peer, Role::Acceptor, &proof));
        assert!(!transcript(2).verify(&peer, Role::Dialer, &proof));
        let other = PeerId(SecretKey::from_bytes([2; 32]).public());
        assert!(!transcript(1).verify(&other, Role::Dialer, &proof));
        let mut replayed = transcript(1);
        replayed.acceptor = Bytes::from_static(b"hello from somebody else");
        assert!(!replayed.verify(&peer, Role::Dialer, &proof));
    }
}
