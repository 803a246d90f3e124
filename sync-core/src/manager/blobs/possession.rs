//! What shows that a peer has a content, without sending it.
//!
//! When a replica wants a content whose bytes another replica brought here, they need not move
//! again; but an entry that names a hash is no proof that anybody in this replica has the bytes. So
//! a peer of the replica is asked to hash them under a key that is fresh and made for this question:
//! only who has all of the bytes can. The key names asker and server, so that a peer cannot pass the
//! question on to somebody who would answer it, and the replica and the run, so that an answer is
//! good for nothing else. Chaining values of the content, all of its outboard, do not help: under
//! another key every chunk hashes to something else.

use super::protocol::{Nonce, Run};
use crate::model::PeerId;

/// Domain of the key under which the groups are hashed.
pub const DOMAIN: &str = "syncline v1 content possession";

/// Who asks whom about what.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who asks.
    pub asker: PeerId,
    /// Who is to answer.
    pub server: PeerId,
    /// What it is about.
    pub run: &'a Run,
    /// The asker's randomness.
    pub nonce: &'a Nonce,
}

impl Question<'_> {
    /// Takes the bytes of the groups, in order; its hash is the answer.
    pub fn hasher(&self) -> blake3::Hasher {
        let mut key = blake3::Hasher::new_derive_key(DOMAIN);
        key.update(self.nonce);
        key.update(&self.asker.0.0);
        key.update(&self.server.0.0);
        key.update(self.run.replica.as_bytes());
        key.update(&self.run.hash.0);
        for number in [self.run.len, self.run.start, self.run.end] {
            key.update(&number.to_be_bytes());
        }
        blake3::Hasher::new_keyed(key.finalize().as_bytes())
    }

    /// The answer, from a reader that has the groups. Blocks on the disk.
    pub(super) fn answer(&self, reader: &crate::store::Reader) -> Result<[u8; 32], crate::store::ContentError> {
        let edge = |group: u64| group.saturating_mul(sync_content::GROUP_LEN).min(self.run.len);
        let mut hasher = self.hasher();
        for bytes in reader.read(edge(self.run.start)..edge(self.run.end))? {
            hasher.update(&bytes?);
        }
        Ok(*hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Hash, SecretKey};

    #[test]
    fn b64_an_answer_is_good_for_one_question_only() {
        let peer = |number: u8| PeerId(SecretKey::from_bytes([number; 32]).public());
        let run = Run { replica: [1; 32].into(), hash: Hash([2; 32]), len: 5, start: 0, end: 1 };
        let answer = |asker, server, run: &Run, nonce: &Nonce, bytes: &[u8]| {
            let question = Question { asker: peer(asker), server: peer(server), run, nonce };
            *question.hasher().update(bytes).finalize().as_bytes()
        };
        let right = answer(1, 2, &run, &[0; 32], b"bytes");
        assert_eq!(answer(1, 2, &run, &[0; 32], b"bytes"), right);
        let others = [
            answer(2, 1, &run, &[0; 32], b"bytes"),
            answer(3, 2, &run, &[0; 32], b"bytes"),
            answer(1, 3, &run, &[0; 32], b"bytes"),
            answer(1, 2, &run, &[1; 32], b"bytes"),
            answer(1, 2, &run, &[0; 32], b"bytez"),
            answer(1, 2, &Run { replica: [9; 32].into(), ..run.clone() }, &[0; 32], b"bytes"),
            answer(1, 2, &Run { hash: Hash([9; 32]), ..run.clone() }, &[0; 32], b"bytes"),
            answer(1, 2, &Run { len: 6, ..run.clone() }, &[0; 32], b"bytes"),
            answer(1, 2, &Run { end: 2, ..run.clone() }, &[0; 32], b"bytes"),
        ];
        assert!(others.iter().all(|other| *other != right));
    }
}
