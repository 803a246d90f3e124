//! `dominance.json`: which of a few entries dominate which others.

use serde_json::{Value as Json, json};
use sync_core::model::{AuthorId, Entry, Op, Order, ReplicaId, Timestamp, dominates};

use super::*;

fn order(entry: &Entry) -> Order {
    Order { timestamp: entry.timestamp, author: entry.author, hash: entry.hash() }
}

fn pairs(entries: &[Entry]) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        for (other_number, other) in entries.iter().enumerate() {
            if dominates((&entry.op, &order(entry)), (&other.op, &order(other))) {
                pairs.push((number, other_number));
            }
        }
    }
    pairs
}

fn make() -> Json {
    let replica = ReplicaId(key(1).public());
    let entries: Vec<Entry> = [
        ("a put", 2, 10, put("ab", "1")),
        ("a newer one by the same author", 2, 20, put("ab", "2")),
        ("one at the same time by another author", 3, 20, put("ab", "3")),
        ("the same time and author: the hash decides", 2, 20, put("ab", "4")),
        ("a delete between them", 3, 15, delete("ab")),
        ("a newer delete", 2, 30, delete("ab")),
        ("a put after it", 2, 40, put("ab", "5")),
        ("a delete of a prefix", 3, 35, delete_prefix("a")),
        ("a newer one of a longer prefix", 3, 36, delete_prefix("ab")),
        ("a delete of everything", 2, 37, delete_prefix("")),
        ("a system entry", 2, 5, put([0, b'x'], "")),
        ("a key beside it", 2, 5, put("b", "")),
    ]
    .into_iter()
    .map(|(_, writer, timestamp, op)| Entry { replica, author: author(writer), timestamp: Timestamp(timestamp), op })
    .collect();
    let shown: Vec<Json> = entries
        .iter()
        .map(|entry| {
            json!({
                "author": entry.author.to_string(), "timestamp": entry.timestamp.0, "postcard": hex(encode(&entry.op)),
                "hash": entry.hash().to_string(),
            })
        })
        .collect();
    let pairs = pairs(&entries);
    let left: Vec<usize> =
        (0..entries.len()).filter(|number| !pairs.iter().any(|(_, dominated)| dominated == number)).collect();
    json!({ "replica": replica.to_string(), "entries": shown, "dominates": pairs, "replica_holds": left })
}

#[test]
fn the_vectors_of_dominance_hold() {
    let file = golden("dominance.json", &make());
    let replica = ReplicaId::from(bytes32(&file["replica"]));
    let entries: Vec<Entry> = list(&file["entries"])
        .iter()
        .map(|vector| {
            let op: Op = decode(&bytes(&vector["postcard"])).unwrap();
            let timestamp = Timestamp(number(&vector["timestamp"]));
            let entry = Entry { replica, author: AuthorId::from(bytes32(&vector["author"])), timestamp, op };
            assert_eq!(entry.hash(), hash(&vector["hash"]));
            entry
        })
        .collect();
    let pairs = pairs(&entries);
    assert_eq!(json!(pairs), file["dominates"]);
    for (first, second) in &pairs {
        for (_, third) in pairs.iter().filter(|pair| pair.0 == *second) {
            assert!(pairs.contains(&(*first, *third)), "dominance is transitive: {first}, {second}, {third}");
        }
    }
    let held = |number: &usize| !pairs.iter().any(|(_, dominated)| dominated == number);
    assert_eq!(json!((0..entries.len()).filter(held).collect::<Vec<_>>()), file["replica_holds"]);
}
