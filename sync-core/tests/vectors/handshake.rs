//! `handshake.json`: hellos, what is signed over them, and whose proof passes for what.

use bytes::Bytes;
use serde_json::{Value as Json, json};
use sync_core::{
    machine::{
        Role, Transcript, common_version,
        wire::{Hello, Message, Proof},
    },
    model::{PeerId, Signature},
    store::StoreId,
};

use super::*;

const BINDING: [u8; 32] = [0xb1; 32];

pub fn hello(seed: u8, addresses: &[&str]) -> Hello {
    Hello {
        oldest: 1,
        newest: 1,
        peer: PeerId(key(seed).public()),
        store: StoreId([seed; 16]),
        incarnation: 300,
        nonce: [seed ^ 0xff; 32],
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    }
}

fn transcript() -> Transcript {
    Transcript {
        dialer: Message::Hello(hello(1, &[])).encode(),
        acceptor: Message::Hello(hello(2, &["quic://192.0.2.1:4433", "http://192.0.2.1:8080/"])).encode(),
        binding: BINDING,
    }
}

/// What is signed, by hand from PROTOCOL.md, section 11.
fn signed(role: u8, binding: &[u8], dialer: &[u8], acceptor: &[u8]) -> Vec<u8> {
    let hash = |hello: &[u8]| *blake3::hash(hello).as_bytes();
    [b"syncline v1 handshake proof\0", &[role][..], binding, &hash(dialer), &hash(acceptor)].concat()
}

fn make() -> Json {
    let transcript = transcript();
    let proofs = [(Role::Dialer, 0, 1), (Role::Acceptor, 1, 2)].map(|(role, byte, seed)| {
        let proof = transcript.prove(&key(seed), role);
        json!({
            "role": byte, "seed": seed, "peer": key(seed).public().to_string(),
            "signed": hex(signed(byte, &BINDING, &transcript.dialer, &transcript.acceptor)),
            "frame": hex(Message::Proof(proof).encode()),
        })
    });
    let by_dialer = transcript.prove(&key(1), Role::Dialer);
    let elsewhere = Transcript { binding: [0xb2; 32], ..transcript.clone() };
    let another = Transcript { acceptor: Message::Hello(hello(3, &[])).encode(), ..transcript.clone() };
    let commit = commits::commit(1, 1, 1, vec![put("k", "v")]);
    let rejected: Vec<Json> = [
        ("the dialer's proof as the acceptor's", 1, 1, by_dialer),
        ("the dialer's proof for another peer", 0, 2, by_dialer),
        ("a proof for another connection", 0, 1, elsewhere.prove(&key(1), Role::Dialer)),
        ("a proof over another hello", 0, 1, another.prove(&key(1), Role::Dialer)),
        ("a signature of another kind", 0, 1, Proof { signature: commit.seal().signature }),
        ("no signature at all", 0, 1, Proof { signature: Signature([0; 64]) }),
    ]
    .into_iter()
    .map(|(name, role, seed, proof)| {
        let peer = key(seed).public().to_string();
        json!({ "name": name, "role": role, "peer": peer, "signature": hex(proof.signature.0), "error": "invalid proof" })
    })
    .collect();
    let versions: Vec<Json> =
        [((1, 1), (1, 1)), ((1, 3), (2, 5)), ((2, 5), (1, 3)), ((1, 2), (3, 4)), ((3, 4), (1, 2))]
            .into_iter()
            .map(|(ours, (oldest, newest))| {
                let common = common_version(ours, &Hello { oldest, newest, ..hello(1, &[]) });
                json!({ "ours": ours, "theirs": [oldest, newest], "common": common })
            })
            .collect();
    json!({
        "dialer_hello": hex(&transcript.dialer), "acceptor_hello": hex(&transcript.acceptor),
        "channel_binding": hex(BINDING), "accepted": proofs, "rejected": rejected, "versions": versions,
    })
}

#[test]
fn b61_the_vectors_of_the_handshake_hold() {
    let file = golden("handshake.json", &make());
    let transcript = Transcript {
        dialer: Bytes::from(bytes(&file["dialer_hello"])),
        acceptor: Bytes::from(bytes(&file["acceptor_hello"])),
        binding: bytes32(&file["channel_binding"]),
    };
    let role = |json: &Json| if number(json) == 0 { Role::Dialer } else { Role::Acceptor };
    for vector in list(&file["accepted"]) {
        let byte = number(&vector["role"]) as u8;
        let message = signed(byte, &transcript.binding, &transcript.dialer, &transcript.acceptor);
        assert_eq!(hex(message), vector["signed"]);
        let frame = Bytes::from(bytes(&vector["frame"]));
        let Ok(Some(Message::Proof(proof))) = Message::decode(frame) else { panic!("a proof is expected") };
        assert!(transcript.verify(&PeerId::from(bytes32(&vector["peer"])), role(&vector["role"]), &proof));
    }
    for vector in list(&file["rejected"]) {
        let proof = Proof { signature: Signature(bytes(&vector["signature"]).try_into().unwrap()) };
        let peer = PeerId::from(bytes32(&vector["peer"]));
        assert!(!transcript.verify(&peer, role(&vector["role"]), &proof), "{}", vector["name"]);
    }
    for vector in list(&file["versions"]) {
        let pair = |json: &Json| (number(&json[0]) as u16, number(&json[1]) as u16);
        let (oldest, newest) = pair(&vector["theirs"]);
        let common = common_version(pair(&vector["ours"]), &Hello { oldest, newest, ..hello(1, &[]) });
        assert_eq!(json!(common), vector["common"]);
    }
}
