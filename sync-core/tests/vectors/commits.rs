//! `commits.json`: bundles, what their authors signed, and what is refused.

use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::{Value as Json, json};
use sync_core::model::{Bundle, HybridClock, Op, ReplicaId, Timestamp, VerifiedBundle, Verifier, sign_commit};

use super::*;

pub fn commit(owner: u8, writer: u8, timestamp: u64, ops: Vec<Op>) -> VerifiedBundle {
    let replica = ReplicaId(key(owner).public());
    sign_commit(replica, &key(writer), &HybridClock::default(), Timestamp(timestamp), ops).unwrap()
}

/// What the author signs, by hand from PROTOCOL.md, section 4.2.
fn signed(replica: &[u8], author: &[u8], count: u32, root: &[u8]) -> Vec<u8> {
    [b"syncline v1 commit\0", replica, author, &count.to_be_bytes(), root].concat()
}

fn part(whole: &VerifiedBundle, indices: &[u32]) -> Bundle {
    let bundle = whole.to_bundle();
    let items = bundle.items.into_iter().filter(|item| indices.contains(&item.index)).collect();
    Bundle { seal: bundle.seal, proof: whole.tree().prove(indices), items }
}

/// Makes a bundle with a good signature over what an honest node refuses to sign.
fn sign_anyway(op: Op, timestamp: u64) -> Bundle {
    use ed25519_dalek::{Signer, SigningKey};
    let mut bundle = commit(1, 2, timestamp, vec![put("k", "v")]).to_bundle();
    let replica = ReplicaId(key(1).public());
    let entry = sync_core::model::Entry { replica, author: author(2), timestamp: Timestamp(timestamp), op: op.clone() };
    let message = signed(replica.as_bytes(), author(2).as_bytes(), 1, &entry.hash().0);
    bundle.seal.signature.0 = SigningKey::from_bytes(&[2; 32]).sign(&message).to_bytes();
    bundle.items[0].op = op;
    bundle
}

fn make() -> Json {
    let replica = ReplicaId(key(1).public());
    let one = commit(1, 2, 1_700_000_000_000_000, vec![put("hello", "world")]);
    let five: Vec<Op> = vec![put("a", "1"), put("b", "2"), delete("a"), delete_prefix("old/"), put("c", [3; 100])];
    let five = commit(1, 2, 1_000, five);
    let accepted: Vec<Json> = [
        ("a commit of one entry", &one, part(&one, &[0])),
        ("a commit of five, whole", &five, five.to_bundle()),
        ("its first entry", &five, part(&five, &[0])),
        ("its last entry", &five, part(&five, &[4])),
        ("two of its entries", &five, part(&five, &[1, 3])),
    ]
    .into_iter()
    .map(|(name, whole, bundle)| {
        let root = whole.root();
        let message = signed(replica.as_bytes(), whole.seal().author.as_bytes(), whole.seal().count, &root.0);
        let entries: Vec<Json> = bundle
            .items
            .iter()
            .map(|item| {
                let hash = whole.tree().leaf(item.index).unwrap().to_string();
                let timestamp = whole.seal().timestamp_of(item.index).0;
                json!({ "index": item.index, "timestamp": timestamp, "hash": hash })
            })
            .collect();
        json!({
            "name": name, "replica": replica.to_string(), "author_seed": 2, "postcard": hex(encode(&bundle)),
            "root": root.to_string(), "signed": hex(message), "signature": hex(bundle.seal.signature.0),
            "entries": entries,
        })
    })
    .collect();

    let changed = |change: &dyn Fn(&mut Bundle)| {
        let mut bundle = five.to_bundle();
        change(&mut bundle);
        bundle
    };
    let small_order = changed(&|b| b.seal.author = [0; 32].into());
    // S + the group order: the same equation, another encoding (RFC 8032, section 5.1.7, requires S below it).
    let malleable = changed(&|b| add_order(&mut b.seal.signature.0));
    let mut lone = part(&five, &[1, 3]);
    lone.proof.pop();
    let long = put("k", [b'v'; 16_385]);
    let rejected: Vec<Json> = [
        ("another timestamp", changed(&|b| b.seal.timestamp.0 += 1), "signature"),
        ("another author", changed(&|b| b.seal.author = author(3)), "signature"),
        ("an author of small order", small_order, "signature"),
        ("a flipped bit in the signature", changed(&|b| b.seal.signature.0[3] ^= 1), "signature"),
        ("the signature with the group order added to S", malleable, "signature"),
        ("another value", changed(&|b| b.items[1].op = put("b", "3")), "signature"),
        ("a larger count without proof", changed(&|b| b.seal.count = 6), "proof"),
        ("a count of nothing", changed(&|b| b.seal.count = 0), "proof"),
        ("a count of 65,537", changed(&|b| b.seal.count = 65_537), "proof"),
        ("no items", changed(&|b| b.items.clear()), "proof"),
        ("items in another order", changed(&|b| b.items.swap(0, 1)), "proof"),
        ("an item twice", changed(&|b| b.items[1] = b.items[0].clone()), "proof"),
        ("an item that is missing without proof", changed(&|b| drop(b.items.remove(2))), "proof"),
        ("a proof that is too short", lone, "proof"),
        ("a proof that is too long", changed(&|b| b.proof.push(five.root())), "proof"),
        ("a timestamp at the end of time", changed(&|b| b.seal.timestamp.0 = u64::MAX), "proof"),
        ("an inline value that is too long", sign_anyway(long, 1), "value too long"),
        ("a signed delete of a system key", sign_anyway(delete([0, b'g']), 1), "system key"),
    ]
    .into_iter()
    .map(|(name, bundle, error)| json!({ "name": name, "postcard": hex(encode(&bundle)), "error": error }))
    .chain([
        json!({ "name": "nothing", "postcard": "", "error": "malformed" }),
        json!({ "name": "a bundle that is cut", "postcard": hex(&encode(&five.to_bundle())[..150]), "error": "malformed" }),
    ])
    .collect();
    let other = json!({ "replica": key(9).public().to_string(), "error": "signature" });
    json!({
        "accepted": accepted, "rejected": rejected, "replica_of_rejected": replica.to_string(),
        "accepted_are_rejected_for": other,
    })
}

fn add_order(signature: &mut [u8; 64]) {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0;
    for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
        carry += u16::from(*byte) + u16::from(order);
        *byte = carry as u8;
        carry >>= 8;
    }
}

fn verdict(replica: ReplicaId, postcard: &Json) -> Result<VerifiedBundle, &'static str> {
    let bundle: Bundle = decode(&bytes(postcard)).ok_or("malformed")?;
    bundle.verify(replica, &mut Verifier::default()).map_err(verify_error)
}

#[test]
fn the_vectors_of_commits_hold() {
    let file = golden("commits.json", &make());
    let foreign: ReplicaId = bytes32(&file["accepted_are_rejected_for"]["replica"]).into();
    for vector in list(&file["accepted"]) {
        let replica = ReplicaId::from(bytes32(&vector["replica"]));
        let verified = verdict(replica, &vector["postcard"]).unwrap();
        assert_eq!(verified.root(), hash(&vector["root"]), "{}", vector["name"]);
        assert_eq!(hex(encode(&verified.to_bundle())), vector["postcard"]);
        let seal = verified.seal();
        let message = signed(replica.as_bytes(), seal.author.as_bytes(), seal.count, &verified.root().0);
        assert_eq!(hex(&message), vector["signed"]);
        let signature = Signature::from_bytes(&bytes(&vector["signature"]).try_into().unwrap());
        VerifyingKey::from_bytes(seal.author.as_bytes()).unwrap().verify_strict(&message, &signature).unwrap();
        let entries: Vec<Json> = verified
            .entries()
            .map(|entry| {
                let order = entry.order;
                json!({ "index": entry.index, "timestamp": order.timestamp.0, "hash": order.hash.to_string() })
            })
            .collect();
        assert_eq!(Json::from(entries), vector["entries"]);
        let error = verdict(foreign, &vector["postcard"]).unwrap_err();
        assert_eq!(error, file["accepted_are_rejected_for"]["error"]);
    }
    let replica = ReplicaId::from(bytes32(&file["replica_of_rejected"]));
    for vector in list(&file["rejected"]) {
        assert_eq!(verdict(replica, &vector["postcard"]).unwrap_err(), vector["error"], "{}", vector["name"]);
    }
}
