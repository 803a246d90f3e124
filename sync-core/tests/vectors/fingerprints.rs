//! `fingerprints.json`: terms, sums and digests.

use serde_json::{Value as Json, json};
use sync_core::model::{Digest, Hash, Summary};

use super::*;

fn entry(n: u8) -> Hash {
    Hash(*blake3::hash(&[n]).as_bytes())
}

/// The digest, by hand from PROTOCOL.md, section 6.
fn by_hand(entries: &[Hash]) -> (Vec<u8>, Vec<u8>) {
    let mut sum = [0u64; 32];
    for entry in entries {
        let mut term = [0; 256];
        keyed("syncline v1 fingerprint term", &entry.0).finalize_xof().fill(&mut term);
        for (lane, part) in sum.iter_mut().zip(term.chunks(8)) {
            *lane = lane.wrapping_add(u64::from_le_bytes(part.try_into().unwrap()));
        }
    }
    let mut summed: Vec<u8> = sum.iter().flat_map(|lane| lane.to_le_bytes()).collect();
    let lanes = summed.clone();
    summed.extend((entries.len() as u64).to_le_bytes());
    (lanes, blake3::derive_key("syncline v1 summary", &summed).to_vec())
}

fn summary(entries: &[Hash]) -> Summary {
    let mut summary = Summary::EMPTY;
    for entry in entries {
        summary.add(&Summary::of(entry));
    }
    summary
}

fn make() -> Json {
    let sets: Vec<Json> = [vec![], vec![1], vec![1, 2], vec![2, 1], (0..20).collect()]
        .into_iter()
        .map(|numbers: Vec<u8>| {
            let entries: Vec<Hash> = numbers.into_iter().map(entry).collect();
            let summary = summary(&entries);
            let digest = summary.digest();
            let entries: Vec<String> = entries.iter().map(Hash::to_string).collect();
            json!({
                "entry_hashes": entries, "sum": hex(&summary.to_bytes()[..256]),
                "digest": { "hash": digest.hash.to_string(), "count": digest.count }, "postcard": hex(encode(&digest)),
            })
        })
        .collect();
    let good = encode(&summary(&[entry(1)]).digest());
    let rejected = [
        ("nothing", Vec::new()),
        ("half a hash", good[..16].to_vec()),
        ("no count", good[..32].to_vec()),
        ("half a count", [&good[..32], &[0x80]].concat()),
        ("a count of more than 64 bits", [&good[..32], &[0xff; 9], &[2]].concat()),
        ("with a byte behind it", [&good[..], &[0]].concat()),
    ];
    let rejected =
        rejected.map(|(name, postcard)| json!({ "name": name, "postcard": hex(postcard), "error": "malformed" }));
    json!({ "accepted": sets, "rejected": rejected })
}

#[test]
fn the_vectors_of_fingerprints_hold() {
    let file = golden("fingerprints.json", &make());
    for vector in list(&file["accepted"]) {
        let entries: Vec<Hash> = list(&vector["entry_hashes"]).iter().map(hash).collect();
        let digest = summary(&entries).digest();
        assert_eq!(digest.hash, hash(&vector["digest"]["hash"]));
        assert_eq!(digest.count, number(&vector["digest"]["count"]));
        assert_eq!(hex(encode(&digest)), vector["postcard"]);
        let (lanes, by_hand) = by_hand(&entries);
        assert_eq!(lanes, bytes(&vector["sum"]));
        // The empty set is the exception.
        assert_eq!(by_hand == digest.hash.0, !entries.is_empty());
    }
    for vector in list(&file["rejected"]) {
        assert_eq!(decode::<Digest>(&bytes(&vector["postcard"])), None, "{}", vector["name"]);
    }
}
