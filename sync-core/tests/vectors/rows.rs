//! `rows.json`: the rows of a small store, and damaged ones, each with the error that reading the store gives.
//!
//! The rows are put together once more by hand, from the table in `store/rows.rs`; but for the index, whose levels
//! follow from the store's salt.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use store_mem::MemEngine;
use sync_core::{
    model::{HybridClock, PeerId, ReplicaId, SlotKey, SlotRange, Timestamp, VerifiedBundle, merkle, sign_commit},
    store::{
        Apply, ChangesRequest, Core, Engine, EngineRead, Have, Missing, NodeKind, NodeRecord, Origin, Position, Query,
        Scan, Scope, StoreError, Write,
    },
};

use super::*;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

const FRESH: [u8; 32] = [9; 32];
/// The spaces, by the first byte of a key.
const SPACES: [(u8, &str); 15] = [
    (0, "meta"),
    (1, "replica"),
    (2, "number"),
    (3, "key"),
    (4, "head"),
    (5, "entry"),
    (6, "log"),
    (7, "commit"),
    (8, "tree"),
    (9, "name"),
    (10, "index"),
    (11, "node"),
    (21, "reference"),
    (23, "doomed"),
    (24, "want"),
];
const INDEX: u8 = 10;

fn replica() -> ReplicaId {
    ReplicaId(key(7).public())
}

fn signed(at: u64, ops: Vec<Op>) -> VerifiedBundle {
    sign_commit(replica(), &key(7), &HybridClock::default(), Timestamp(at), ops).unwrap()
}

fn blob() -> Op {
    let value = Value::Blob { hash: Hash(*blake3::hash(b"content").as_bytes()), len: 5_000_000 };
    Op::Put { key: Key::try_from("c").unwrap(), value }
}

/// What is written, with where it came from.
fn written() -> Vec<(VerifiedBundle, Origin)> {
    vec![
        (signed(1_000, vec![put("a", "one")]), Origin::Local),
        (signed(2_000, vec![put("b", "two"), blob(), delete("d")]), Origin::Local),
        (signed(3_000, vec![delete_prefix("x/")]), Origin::Peer(PeerId(key(2).public()))),
        (signed(4_000, vec![put([b'a', 0, b'b'], "a key with a zero")]), Origin::Local),
    ]
}

fn record() -> NodeRecord {
    NodeRecord { kind: NodeKind::Setting, name: "name".into(), value: Some("value".into()) }
}

fn all_rows(engine: &MemEngine) -> Rows {
    let mut rows = Rows::new();
    let snapshot = engine.snapshot().unwrap();
    snapshot
        .scan(&[], None, Scan::Forward, &mut |key, value| {
            rows.insert(key.to_vec(), value.to_vec());
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

/// The rows that a store makes of it.
fn made() -> Rows {
    let core = Core::open(MemEngine::default(), FRESH).unwrap();
    let mut group =
        vec![Write::CreateReplica { replica: replica(), records: Vec::new() }, Write::Save { records: vec![record()] }];
    group.extend(written().into_iter().map(|(bundle, origin)| {
        let now = bundle.seal().timestamp;
        Write::Apply(Apply { replica: replica(), bundles: vec![bundle], origin, now, records: Vec::new() })
    }));
    // One after the other, as transactions of their own.
    for write in group {
        core.write(&[write]).pop().unwrap().unwrap();
    }
    all_rows(core.engine())
}

/// The same by hand, but for the index.
fn by_hand() -> Rows {
    const REPLICA_NO: [u8; 4] = [0, 0, 0, 1];
    let (owner, peer) = (key(7).public(), key(2).public());
    let (owner_no, peer_no) = ([0, 0, 0, 1], [0, 0, 0, 2]);
    let mut rows = Rows::new();
    let mut row = |key: &[&[u8]], value: &[&[u8]]| rows.insert(key.concat(), value.concat());
    row(&[&[0], b"format"], &[&[0, 0, 0, 3]]);
    row(&[&[0], b"store id"], &[&blake3::derive_key("syncline v1 store id", &FRESH)[..16]]);
    row(&[&[0], b"salt"], &[&blake3::derive_key("syncline v1 store salt", &FRESH)]);
    row(&[&[0], b"next replica"], &[&[0, 0, 0, 2]]);
    row(&[&[0], b"next key"], &[&[0, 0, 0, 3]]);
    row(&[&[1], &owner.0], &[&REPLICA_NO]);
    for (public, number) in [(&owner.0, owner_no), (&peer.0, peer_no)] {
        row(&[&[2], public], &[&number]);
        row(&[&[3], &number], &[public]);
    }
    row(&[&[11, 4], b"name"], &[b"value"]);
    let mut position = 0u64;
    let (mut value_bytes, mut commits) = (0, 0u64);
    for (bundle, origin) in written() {
        let seal = *bundle.seal();
        let origin = if origin == Origin::Local { [0; 4] } else { peer_no };
        let is_alone = seal.count == 1;
        let leaves: Vec<Hash> = bundle.entries().map(|entry| entry.order.hash).collect();
        for (index, entry) in bundle.entries().enumerate() {
            position += 1;
            let (tag, section, name, author, body) = match &entry.op {
                Op::Put { key, value: Value::Inline(value) } => (0, 2, key.as_bytes(), owner_no, value.to_vec()),
                Op::Put { key, value: Value::Blob { hash, len } } => {
                    (1, 2, key.as_bytes(), owner_no, [&hash.0[..], &len.to_be_bytes()].concat())
                }
                Op::Delete { key } => (2, 2, key.as_bytes(), [0xff; 4], Vec::new()),
                Op::DeletePrefix { prefix } => (3, 1, prefix.as_bytes(), [0xff; 4], Vec::new()),
            };
            let escaped: Vec<u8> =
                name.iter().flat_map(|byte| if *byte == 0 { vec![0, 0xff] } else { vec![*byte] }).collect();
            let slot = [&[section], &escaped[..], &[0, 0], &author].concat();
            let proof = match is_alone {
                true => [&[0][..], &seal.signature.0].concat(),
                false => [&[1][..], &commits.to_be_bytes(), &(index as u32).to_be_bytes()].concat(),
            };
            let at = position.to_be_bytes();
            let hash = entry.order.hash;
            let time = entry.order.timestamp.0.to_be_bytes();
            row(&[&[5], &REPLICA_NO, &slot], &[&hash.0, &time, &owner_no, &at, &origin, &proof, &[tag], &body]);
            row(&[&[6], &REPLICA_NO, &at], &[&origin, &slot]);
            value_bytes += match &entry.op {
                Op::Put { value, .. } => value.len(),
                _ => 0,
            };
            if let Op::Put { value: Value::Blob { hash, len }, .. } = &entry.op {
                row(&[&[21], &hash.0, &REPLICA_NO, &slot], &[&len.to_be_bytes()]);
                row(&[&[24], &REPLICA_NO, &hash.0], &[&len.to_be_bytes()]);
            }
        }
        if !is_alone {
            let (no, root) = (commits.to_be_bytes(), merkle::root(&leaves).0);
            let (count, time) = (seal.count.to_be_bytes(), seal.timestamp.0.to_be_bytes());
            let known: Vec<u8> = leaves.iter().flat_map(|leaf| leaf.0).collect();
            row(&[&[7], &REPLICA_NO, &no], &[&count, &owner.0, &time, &count, &seal.signature.0, &root]);
            row(&[&[8], &REPLICA_NO, &no], &[&count, &count, &known]);
            let name = blake3::hash(&[&owner.0[..], &time, &count, &root].concat());
            row(&[&[9], &REPLICA_NO, name.as_bytes()], &[&no]);
            commits += 1;
        }
    }
    let rights_version = 0u64;
    let (tombstones, prefix_tombstones, blobs) = (1u64, 1u64, 1u64);
    let head = [position, 4_000, commits, rights_version, tombstones, prefix_tombstones, blobs, value_bytes];
    row(&[&[4], &REPLICA_NO], &[&head.map(u64::to_be_bytes).concat()]);
    rows
}

fn name_of(space: u8) -> &'static str {
    SPACES.iter().find(|(number, _)| *number == space).unwrap_or_else(|| panic!("space {space}")).1
}

/// Reads everything that is in a store with these rows.
fn read(rows: &Rows) -> Result<usize, StoreError> {
    let engine = MemEngine::default();
    engine.write(&mut |writer| rows.iter().try_for_each(|(key, value)| writer.put(key, value)))?;
    let core = Core::open(engine, [0; 32])?;
    for kind in [NodeKind::Setting, NodeKind::Job] {
        core.node_records(kind)?;
    }
    let mut found = 0;
    for id in core.replicas()? {
        core.state(id)?;
        for key in ["a", "b", "c", "d"] {
            core.get(id, &Key::try_from(key).unwrap())?;
        }
        core.query(id, &Query::default())?;
        found += core.log(id, Position(0), usize::MAX)?.len();
        core.summary(id, &SlotRange::ALL)?;
        core.summary(id, &SlotRange { start: SlotKey::ordinary(b"b"), end: None })?;
        let scope = Scope::all();
        core.changes(&ChangesRequest {
            replica: id,
            since: Position(0),
            not_from: None,
            scope: scope.clone(),
            max_bytes: usize::MAX,
        })?;
        let all = Missing { range: SlotRange::ALL, except: Vec::new(), until: Position::LAST };
        core.missing(id, &scope, &[all], usize::MAX)?;
        core.reconcile(id, &scope, vec![claim()])?;
    }
    Ok(found)
}

fn claim() -> sync_core::store::Claim {
    sync_core::store::Claim { range: SlotRange::ALL, have: Have::Ids(Vec::new()) }
}

fn error(error: &StoreError) -> String {
    match error {
        StoreError::NewerFormat { .. } => "newer format".into(),
        StoreError::Corrupt(what) => format!("corrupt: {what}"),
        other => panic!("{other}"),
    }
}

/// What is damaged: a name, the key of a row, its value if it still has one.
type Damage = (&'static str, Vec<u8>, Option<Vec<u8>>);

fn damaged(rows: &Rows) -> Vec<Damage> {
    let first = |space: u8| rows.keys().find(|key| key[0] == space).unwrap().clone();
    // The row of everything: the others are read when that is not enough.
    let root = rows.keys().rfind(|key| key[0] == INDEX).unwrap().clone();
    let entry = |name: &[u8]| rows.keys().find(|key| key[0] == 5 && key[6..].starts_with(name)).unwrap().clone();
    let meta = |name: &str| [&[0][..], name.as_bytes()].concat();
    let short = |key: &[u8]| Some(rows[key][..rows[key].len() - 1].to_vec());
    let long = |key: &[u8]| Some([&rows[key][..], &[0]].concat());
    let set = |key: &[u8], at: usize, byte: u8| {
        let mut value = rows[key].clone();
        value[at] = byte;
        Some(value)
    };
    // Where the proof is in an entry's row, and where the op is when it is a part of a commit.
    let (proof, part_op) = (32 + 8 + 4 + 8 + 4, 32 + 8 + 4 + 8 + 4 + 13);
    let (alone, part, of_blob) = (entry(b"a\0\0"), entry(b"b"), entry(b"c"));
    let case = |name, key: &[u8], value| (name, key.to_vec(), value);
    vec![
        case("a format that is newer", &meta("format"), Some(vec![0, 0, 0, 4])),
        case("half a format", &meta("format"), Some(vec![0, 2])),
        case("no store id", &meta("store id"), None),
        case("a store id of 15 bytes", &meta("store id"), short(&meta("store id"))),
        case("no salt", &meta("salt"), None),
        case("a salt of 31 bytes", &meta("salt"), short(&meta("salt"))),
        case("half a number of a replica", &first(1), Some(vec![0, 1])),
        case("no head", &first(4), None),
        case("a head that is too short", &first(4), short(&first(4))),
        case("a head that is too long", &first(4), long(&first(4))),
        case("an entry's row that ends before its proof", &alone, Some(rows[&alone][..proof].to_vec())),
        case("a proof of an unknown kind", &alone, set(&alone, proof, 2)),
        case("half a signature", &alone, Some(rows[&alone][..proof + 33].to_vec())),
        case("an entry's row without an operation", &part, Some(rows[&part][..part_op].to_vec())),
        case("an operation of an unknown kind", &part, set(&part, part_op, 4)),
        case("half a content's hash", &of_blob, Some(rows[&of_blob][..part_op + 17].to_vec())),
        case("a content's length of 9 bytes", &of_blob, long(&of_blob)),
        case("an entry by a number that is nobody's", &alone, set(&alone, 43, 77)),
        case("an entry of a commit that is not here", &part, set(&part, proof + 8, 77)),
        case("half an origin in a log row", &first(6), Some(vec![0, 0])),
        case("a log row of an entry that is not here", &first(6), set(&first(6), 5, b'q')),
        case("a commit's row that is too short", &first(7), short(&first(7))),
        case("a commit's row that is too long", &first(7), long(&first(7))),
        case("a tree with half a leaf", &first(8), short(&first(8))),
        case("a tree of no entries", &first(8), Some(vec![0; 8])),
        case("a tree that is not here", &first(8), None),
        case("a row of the index that is too short", &root, short(&root)),
        case("a public key of 31 bytes", &first(3), short(&first(3))),
    ]
}

fn make() -> Json {
    let rows = made();
    let accepted: Vec<Json> = rows
        .iter()
        .map(|(key, value)| json!({ "space": name_of(key[0]), "key": hex(key), "value": hex(value) }))
        .collect();
    let rejected: Vec<Json> = damaged(&rows)
        .into_iter()
        .map(|(name, key, value)| {
            let mut changed = rows.clone();
            match &value {
                Some(value) => changed.insert(key.clone(), value.clone()),
                None => changed.remove(&key),
            };
            let found = read(&changed).expect_err(name);
            json!({ "name": name, "key": hex(&key), "value": value.map(hex), "error": error(&found) })
        })
        .collect();
    json!({ "replica": hex(replica().0.0), "accepted": accepted, "rejected": rejected })
}

#[test]
fn the_vectors_of_rows_hold() {
    let file = golden("rows.json", &make());
    let row = |json: &Json| (bytes(&json["key"]), bytes(&json["value"]));
    let rows: Rows = list(&file["accepted"]).iter().map(row).collect();
    assert_eq!(read(&rows).unwrap(), 6);
    let without_index: Rows =
        rows.iter().filter(|(key, _)| key[0] != INDEX).map(|(key, value)| (key.clone(), value.clone())).collect();
    assert_eq!(without_index, by_hand());
    for vector in list(&file["rejected"]) {
        let mut changed = rows.clone();
        match &vector["value"] {
            Json::Null => changed.remove(&bytes(&vector["key"])),
            value => changed.insert(bytes(&vector["key"]), bytes(value)),
        };
        assert_eq!(error(&read(&changed).unwrap_err()), vector["error"].as_str().unwrap(), "{}", vector["name"]);
    }
}
