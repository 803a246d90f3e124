//! `entries.json`: operations, their encoding, hash and place.

use serde_json::{Value as Json, json};
use sync_core::model::{AuthorId, Entry, Hash, Key, Op, ReplicaId, Timestamp, Value};

use super::*;

fn op_json(op: &Op) -> Json {
    match op {
        Op::Put { key, value: Value::Inline(value) } => json!({ "op": "put", "key": hex(&**key), "value": hex(value) }),
        Op::Put { key, value: Value::Blob { hash, len } } => {
            json!({ "op": "put", "key": hex(&**key), "blob": { "hash": hash.to_string(), "len": len } })
        }
        Op::Delete { key } => json!({ "op": "delete", "key": hex(&**key) }),
        Op::DeletePrefix { prefix } => json!({ "op": "delete prefix", "prefix": hex(&**prefix) }),
    }
}

/// What is hashed, by hand from PROTOCOL.md, section 3.1.
fn hashed(replica: &[u8; 32], author: &[u8; 32], timestamp: u64, op: &Json) -> Vec<u8> {
    let (tag, key, rest) = match (op["op"].as_str().unwrap(), op.get("blob")) {
        ("put", None) => (0, bytes(&op["key"]), bytes(&op["value"])),
        ("put", Some(blob)) => {
            let rest = [&bytes(&blob["hash"])[..], &number(&blob["len"]).to_be_bytes()].concat();
            (1, bytes(&op["key"]), rest)
        }
        ("delete", _) => (2, bytes(&op["key"]), Vec::new()),
        _ => (3, bytes(&op["prefix"]), Vec::new()),
    };
    let len = (key.len() as u16).to_be_bytes();
    [&replica[..], author, &timestamp.to_be_bytes(), &[tag], &len, &key, &rest].concat()
}

fn place(op: &Json) -> Vec<u8> {
    match op["op"].as_str().unwrap() {
        "delete prefix" => [vec![1], bytes(&op["prefix"])].concat(),
        _ => {
            let key = bytes(&op["key"]);
            [vec![if key[0] == 0 { 0 } else { 2 }], key].concat()
        }
    }
}

fn make() -> Json {
    let (replica, writer) = (key(1).public(), author(2));
    let blob = |key: &[u8], len| Op::Put {
        key: Key::try_from(key).unwrap(),
        value: Value::Blob { hash: Hash(*blake3::hash(b"content").as_bytes()), len },
    };
    let accepted: Vec<Json> = [
        ("a put", 1_700_000_000_000_000, put("hello", "world")),
        ("an empty value", 1, put("hello", "")),
        ("the shortest key", 0, put([1], [0, 255])),
        ("the longest key", u64::MAX, put([b'k'; 1024], "v")),
        ("the longest inline value", 1, put("k", [b'v'; 16384])),
        ("a blob", 300, blob(b"folder/file", 7)),
        ("the longest blob", 300, blob(b"folder/file", u64::MAX)),
        ("a put of a system key", 5, put([0, b'x', 1], [2])),
        ("a delete", 128, delete("hello")),
        ("a delete of a prefix", 127, delete_prefix("folder/")),
        ("a delete of everything", 6, delete_prefix("")),
        ("a delete of a prefix of the greatest bytes", 6, delete_prefix([255, 255])),
    ]
    .into_iter()
    .map(|(name, timestamp, op)| {
        let shown = op_json(&op);
        let message = hashed(&replica.0, writer.as_bytes(), timestamp, &shown);
        let place = hex(op.slot_key().as_bytes());
        let postcard = hex(encode(&op));
        let entry = Entry { replica: ReplicaId(replica), author: writer, timestamp: Timestamp(timestamp), op };
        json!({
            "name": name, "replica": replica.to_string(), "author": writer.to_string(), "timestamp": timestamp,
            "entry": shown, "postcard": postcard, "hashed": hex(message), "hash": entry.hash().to_string(),
            "place": place,
        })
    })
    .collect();
    let rejected: Vec<Json> = [
        ("no key", encode(&(0u32, b"".as_slice(), 0u32)), "malformed"),
        ("a key of 1,025 bytes", [&[1, 0x81, 0x08][..], &[7; 1025]].concat(), "malformed"),
        ("a prefix of 1,025 bytes", [&[2, 0x81, 0x08][..], &[7; 1025]].concat(), "malformed"),
        ("an operation that there is not", vec![3, 1, b'k'], "malformed"),
        ("a value that there is not", vec![0, 1, b'k', 2, 0], "malformed"),
        ("a key that is cut", vec![1, 5, b'k'], "malformed"),
        ("a length of all ones", [&[1][..], &[0xff; 9], &[1]].concat(), "malformed"),
        ("a length that does not fit", [&[1][..], &[0xff; 10]].concat(), "malformed"),
        ("something behind the end", vec![1, 1, b'k', 0], "malformed"),
        ("an inline value of 16,385 bytes", encode(&put("k", [b'v'; 16385])), "value too long"),
        ("a blob under a system key", encode(&blob(&[0, b'g'], 1)), "system key"),
        ("a delete of a system key", encode(&delete([0])), "system key"),
        ("a delete of a prefix of system keys", encode(&delete_prefix([0, b'g'])), "system key"),
    ]
    .into_iter()
    .map(|(name, postcard, error)| json!({ "name": name, "postcard": hex(postcard), "error": error }))
    .collect();
    let overlong = json!([{ "name": "a length in more bytes than it needs", "postcard": "0181006b", "as": "01016b" }]);
    json!({ "accepted": accepted, "rejected": rejected, "accepted_though_not_shortest": overlong })
}

#[test]
fn the_vectors_of_entries_hold() {
    let file = golden("entries.json", &make());
    for vector in list(&file["accepted"]) {
        let op: Op = decode(&bytes(&vector["postcard"])).unwrap();
        assert_eq!(op.check(), Ok(()), "{}", vector["name"]);
        assert_eq!(op_json(&op), vector["entry"]);
        assert_eq!(hex(encode(&op)), vector["postcard"]);
        let (replica, author) = (bytes32(&vector["replica"]), bytes32(&vector["author"]));
        let message = hashed(&replica, &author, number(&vector["timestamp"]), &vector["entry"]);
        assert_eq!(hex(&message), vector["hashed"]);
        assert_eq!(keyed("syncline v1 entry", &message).finalize().as_bytes(), &bytes32(&vector["hash"]));
        assert_eq!(place(&vector["entry"]), bytes(&vector["place"]));
        assert_eq!(op.slot_key().as_bytes()[..], bytes(&vector["place"]));
        let timestamp = Timestamp(number(&vector["timestamp"]));
        let entry = Entry { replica: replica.into(), author: AuthorId::from(author), timestamp, op };
        assert_eq!(entry.hash(), hash(&vector["hash"]), "{}", vector["name"]);
    }
    for vector in list(&file["rejected"]) {
        let error = match decode::<Op>(&bytes(&vector["postcard"])) {
            None => "malformed",
            Some(op) => entry_error(op.check().expect_err(vector["name"].as_str().unwrap())),
        };
        assert_eq!(error, vector["error"], "{}", vector["name"]);
    }
    for vector in list(&file["accepted_though_not_shortest"]) {
        let op: Op = decode(&bytes(&vector["postcard"])).unwrap();
        assert_eq!(hex(encode(&op)), vector["as"], "{}", vector["name"]);
    }
}
