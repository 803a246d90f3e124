//! `merkle.json`: roots and multiproofs.

use serde_json::{Value as Json, json};
use sync_core::model::{
    Hash,
    merkle::{PartialTree, root, root_of_part},
};

use super::*;

fn leaf(index: u32) -> Hash {
    Hash(*blake3::hash(&index.to_be_bytes()).as_bytes())
}

/// The root, by hand from PROTOCOL.md, section 4.1.
fn root_by_hand(leaves: &[Hash]) -> Hash {
    if let [leaf] = leaves {
        return *leaf;
    }
    let mut middle = 1;
    while middle * 2 < leaves.len() {
        middle *= 2;
    }
    let both = [root_by_hand(&leaves[..middle]).0, root_by_hand(&leaves[middle..]).0].concat();
    Hash(*keyed("syncline v1 merkle node", &both).finalize().as_bytes())
}

fn texts(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(Hash::to_string).collect()
}

fn hashes(json: &Json) -> Vec<Hash> {
    list(json).iter().map(hash).collect()
}

fn pick(leaves: &[Hash], indices: &[u32]) -> Vec<(u32, Hash)> {
    indices.iter().map(|&index| (index, leaves[index as usize])).collect()
}

fn make() -> Json {
    let mut accepted = Vec::new();
    for count in [1u32, 2, 3, 5, 7, 8] {
        let leaves: Vec<Hash> = (0..count).map(leaf).collect();
        let all: Vec<u32> = (0..count).collect();
        let tree = PartialTree::new(count, pick(&leaves, &all), Vec::new()).unwrap();
        let parts: Vec<Json> = [vec![0], vec![count - 1], vec![0, count - 1], vec![1, 3, 4], all]
            .into_iter()
            .map(|mut indices: Vec<u32>| {
                indices.retain(|index| *index < count);
                indices.dedup();
                indices
            })
            .filter(|indices| !indices.is_empty())
            .map(|indices| json!({ "indices": indices, "proof": texts(&tree.prove(&indices)) }))
            .collect();
        accepted.push(json!({ "leaves": texts(&leaves), "root": root(&leaves).to_string(), "parts": parts }));
    }
    let leaves: Vec<Hash> = (0..5).map(leaf).collect();
    let tree = PartialTree::new(5, pick(&leaves, &[0, 1, 2, 3, 4]), Vec::new()).unwrap();
    let proof = tree.prove(&[1, 3]);
    let longer = [&proof[..], &leaves[..1]].concat();
    let rejected: Vec<Json> = [
        ("a proof that is too long", 5, vec![1, 3], longer),
        ("a proof that is too short", 5, vec![1, 3], proof[1..].to_vec()),
        ("indices that do not ascend", 5, vec![3, 1], proof.clone()),
        ("an index twice", 5, vec![1, 1, 3], proof.clone()),
        ("an index that is not below the count", 4, vec![1, 4], proof.clone()),
        ("no leaves", 5, vec![], vec![root(&leaves)]),
        ("a count of nothing", 0, vec![], vec![]),
        ("a count of 65,537", 65_537, vec![1, 3], proof),
    ]
    .into_iter()
    .map(|(name, count, indices, proof)| {
        json!({ "name": name, "count": count, "indices": indices, "proof": texts(&proof), "error": "proof" })
    })
    .collect();
    json!({ "accepted": accepted, "rejected": rejected, "leaves_of_rejected": texts(&leaves) })
}

#[test]
fn the_vectors_of_merkle_trees_hold() {
    let file = golden("merkle.json", &make());
    let indices = |json: &Json| list(json).iter().map(|index| number(index) as u32).collect::<Vec<u32>>();
    for vector in list(&file["accepted"]) {
        let leaves = hashes(&vector["leaves"]);
        let expected = hash(&vector["root"]);
        assert_eq!(root(&leaves), expected);
        assert_eq!(root_by_hand(&leaves), expected);
        for part in list(&vector["parts"]) {
            let shown = pick(&leaves, &indices(&part["indices"]));
            assert_eq!(root_of_part(leaves.len() as u32, &shown, &hashes(&part["proof"])), Some(expected), "{part}");
        }
    }
    let leaves = hashes(&file["leaves_of_rejected"]);
    for vector in list(&file["rejected"]) {
        let shown = pick(&leaves, &indices(&vector["indices"]));
        let outcome = root_of_part(number(&vector["count"]) as u32, &shown, &hashes(&vector["proof"]));
        assert_eq!(outcome, None, "{}", vector["name"]);
    }
}
