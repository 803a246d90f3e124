//! `grants.json`: grants, what becomes of system entries, and what rights cover.

use serde_json::{Value as Json, json};
use sync_core::model::{
    AuthorId, EVERYBODY, Grant, GrantId, Hash, MAX_CHAIN, Op, PeerId, Prefix, PublicKey, ReplicaId, Right, Rights,
    RightsError, Timestamp, Value,
};

use super::*;

fn error_name(error: RightsError) -> &'static str {
    match error {
        RightsError::NotCovered => "not covered",
        RightsError::BrokenChain => "broken chain",
        RightsError::TooWide => "too wide",
        RightsError::TooDeep => "too deep",
        RightsError::UnknownSystemEntry => "unknown system entry",
    }
}

fn grant(subject: PublicKey, right: Right, prefix: &str, expires: Option<u64>, parent: Option<GrantId>) -> Grant {
    let prefix = Prefix::new(prefix.as_bytes().to_vec()).unwrap();
    Grant { subject, right, prefix, expires: expires.map(Timestamp), parent }
}

fn grant_json(issuer: &AuthorId, grant: &Grant) -> Json {
    let op = grant.to_op(issuer);
    json!({
        "issuer": issuer.to_string(), "subject": grant.subject.to_string(), "right": format!("{:?}", grant.right),
        "prefix": hex(&*grant.prefix), "expires": grant.expires.map(|expires| expires.0),
        "parent": grant.parent.map(|parent| parent.0.to_string()), "postcard": hex(encode(grant)),
        "id": grant.id(issuer).0.to_string(), "key": hex(op.key_bytes()), "op": hex(encode(&op)),
    })
}

/// A system entry of a history: by whom, what, and what must become of it.
fn step(name: &str, issuer: u8, op: &Op, outcome: &str) -> Json {
    json!({ "name": name, "author": author(issuer).to_string(), "op": hex(encode(op)), "outcome": outcome })
}

fn histories() -> Vec<Json> {
    let (owner, writer, other) = (author(1), author(2), author(3));
    let first = grant(writer.0, Right::Write, "a/", Some(1_000), None);
    let first_id = first.id(&owner);
    let child = |subject: PublicKey, right, prefix, expires| grant(subject, right, prefix, expires, Some(first_id));
    let moved = |grant: &Grant, issuer: &AuthorId, change: &dyn Fn(&mut Vec<u8>, &mut Vec<u8>)| {
        let Op::Put { key, value: Value::Inline(value) } = grant.to_op(issuer) else { unreachable!() };
        let (mut key, mut value) = (key.as_bytes().to_vec(), value.to_vec());
        change(&mut key, &mut value);
        put(key, value)
    };
    let rights = vec![
        step("a grant by the owner", 1, &first.to_op(&owner), "admitted"),
        step("the same again", 1, &first.to_op(&owner), "admitted"),
        step("by a stranger", 9, &grant(other.0, Right::Read, "", None, None).to_op(&author(9)), "broken chain"),
        step(
            "with a parent for somebody else",
            3,
            &child(other.0, Right::Read, "a/", Some(1)).to_op(&other),
            "broken chain",
        ),
        step(
            "with a parent that is not known",
            2,
            &grant(other.0, Right::Read, "", None, Some(GrantId(Hash([7; 32])))).to_op(&writer),
            "broken chain",
        ),
        step("of a greater right", 2, &child(other.0, Right::Admin, "a/", Some(1)).to_op(&writer), "too wide"),
        step("of a wider prefix", 2, &child(other.0, Right::Read, "a", Some(1)).to_op(&writer), "too wide"),
        step("that ends later", 2, &child(other.0, Right::Read, "a/", Some(1_001)).to_op(&writer), "too wide"),
        step("that never ends", 2, &child(other.0, Right::Read, "a/", None).to_op(&writer), "too wide"),
        step("as wide as its parent", 2, &child(other.0, Right::Write, "a/", Some(1_000)).to_op(&writer), "admitted"),
        step("under the id of another issuer", 2, &first.to_op(&owner), "unknown system entry"),
        step("under another key", 1, &moved(&first, &owner, &|key, _| key[5] ^= 1), "unknown system entry"),
        step(
            "under a key with more behind it",
            1,
            &moved(&first, &owner, &|key, _| key.push(0)),
            "unknown system entry",
        ),
        step("with a byte behind it", 1, &moved(&first, &owner, &|_, value| value.push(0)), "unknown system entry"),
        step("that is cut", 1, &moved(&first, &owner, &|_, value| value.truncate(39)), "unknown system entry"),
        step("of another kind", 1, &put([0, b'r'], "?"), "unknown system entry"),
        step("for everybody", 1, &grant(EVERYBODY, Right::Write, "open/", None, None).to_op(&owner), "admitted"),
    ];
    let mut chain = Vec::new();
    let mut parent = None;
    for n in 0..=MAX_CHAIN as u8 {
        let issuer = author(n + 1);
        let link = grant(author(n + 2).0, Right::Read, "", None, parent);
        parent = Some(link.id(&issuer));
        let outcome = if usize::from(n) < MAX_CHAIN { "admitted" } else { "too deep" };
        chain.push(step(&format!("link {}", n + 1), n + 1, &link.to_op(&issuer), outcome));
    }
    let write = |seed: u8, op: &Op, timestamp: u64, allowed: bool| json!({ "author": author(seed).to_string(), "op": hex(encode(op)), "timestamp": timestamp, "allowed": allowed });
    let read = |seed: u8, now: u64, prefixes: &[&str]| {
        let prefixes: Vec<Json> = prefixes.iter().map(hex).collect();
        json!({ "reader": author(seed).to_string(), "now": now, "prefixes": prefixes })
    };
    vec![
        json!({
            "name": "one grant and what is made of it", "owner": owner.to_string(), "entries": rights,
            "writes": [
                write(1, &delete_prefix(""), u64::MAX, true),
                write(2, &put("a/x", ""), 999, true),
                write(2, &put("a/x", ""), 1_000, false),
                write(2, &put("b", ""), 1, false),
                write(2, &delete_prefix("a/"), 1, true),
                write(2, &delete_prefix("a"), 1, false),
                write(3, &delete("a/x"), 1, true),
                write(9, &put("open/x", ""), 1, false),
            ],
            "reads": [
                read(1, 5_000, &[""]), read(2, 999, &["a/", "open/"]), read(2, 1_000, &["open/"]),
                read(9, 1, &["open/"]),
            ],
        }),
        json!({
            "name": "a chain that is too long", "owner": owner.to_string(), "entries": chain, "writes": [],
            "reads": [read(2, 1, &[""]), read(9, 1, &[""]), read(10, 1, &[])],
        }),
    ]
}

/// A grant's bytes under the id that follows from them, by their issuer: what is wrong is in the bytes alone.
fn entry_of(issuer: &AuthorId, postcard: &[u8]) -> Op {
    let id = blake3::derive_key("syncline v1 grant", &[&issuer.as_bytes()[..], postcard].concat());
    put([&[0, b'g'][..], &id].concat(), postcard)
}

fn admitted(owner: &AuthorId, postcard: &[u8]) -> Result<(), RightsError> {
    Rights::new(ReplicaId::from(*owner.as_bytes())).admit(owner, &entry_of(owner, postcard)).map(|_| ())
}

fn rejected(owner: &AuthorId) -> Vec<Json> {
    let good = encode(&grant(author(2).0, Right::Write, "a/", Some(1_000), None));
    assert_eq!(admitted(owner, &good), Ok(()));
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    // Subject, right, prefix behind its length, the option of an end, the end in two bytes, the option of a parent.
    assert_eq!(&good[32..], [1, 2, b'a', b'/', 1, 0xe8, 0x07, 0]);
    let long_prefix = [&good[..33], &[0x81, 8], &[b'a'; 1_025], &[0, 0]].concat();
    let cases = [
        ("nothing", Vec::new()),
        ("half a subject", good[..16].to_vec()),
        ("cut by a byte", good[..good.len() - 1].to_vec()),
        ("with a byte behind it", changed(&|bytes| bytes.push(0))),
        ("a right that there is not", changed(&|bytes| bytes[32] = 3)),
        ("a right that is longer than need be", changed(&|bytes| drop(bytes.splice(32..33, [0x81, 0])))),
        ("a prefix beyond the end", changed(&|bytes| bytes[33] = 200)),
        ("a prefix of a length of all ones", [&good[..33], &[0xff; 9], &[1]].concat()),
        ("a prefix that is too long", long_prefix),
        ("an end whose option is 2", changed(&|bytes| bytes[36] = 2)),
        ("an end that is longer than need be", changed(&|bytes| drop(bytes.splice(38..39, [0x87, 0])))),
        ("an end of more than ten bytes", [&good[..37], &[0xff; 10], &[1, 0]].concat()),
        ("half a parent", changed(&|bytes| drop(bytes.splice(39..40, [1, 7, 7])))),
        ("a parent whose option is 2", changed(&|bytes| bytes[39] = 2)),
    ];
    let case = |(name, postcard): (&str, Vec<u8>)| {
        let error = error_name(admitted(owner, &postcard).expect_err(name));
        json!({ "name": name, "issuer": owner.to_string(), "postcard": hex(postcard), "error": error })
    };
    cases.into_iter().map(case).collect()
}

fn make() -> Json {
    let (owner, invite) = (author(1), author(2));
    let first = grant(invite.0, Right::Write, "", Some(1_800_000_000_000_000), None);
    let second = grant(author(3).0, Right::Write, "notes/", Some(5), Some(first.id(&owner)));
    let grants = [
        grant_json(&owner, &first),
        grant_json(&invite, &second),
        grant_json(&owner, &grant(EVERYBODY, Right::Read, "", None, None)),
        grant_json(&owner, &grant(invite.0, Right::Admin, "", None, None)),
    ];
    json!({ "accepted": grants, "rejected": rejected(&owner), "histories": histories() })
}

#[test]
fn b63_the_vectors_of_grants_hold() {
    let file = golden("grants.json", &make());
    for vector in list(&file["accepted"]) {
        let issuer = AuthorId::from(bytes32(&vector["issuer"]));
        let postcard = bytes(&vector["postcard"]);
        let grant: Grant = decode(&postcard).unwrap();
        assert_eq!(grant_json(&issuer, &grant), *vector);
        let id = blake3::derive_key("syncline v1 grant", &[&issuer.as_bytes()[..], &postcard].concat());
        assert_eq!(id, bytes32(&vector["id"]));
        assert_eq!([&[0, b'g'][..], &id].concat(), bytes(&vector["key"]));
    }
    for vector in list(&file["rejected"]) {
        let issuer = AuthorId::from(bytes32(&vector["issuer"]));
        let error = admitted(&issuer, &bytes(&vector["postcard"])).unwrap_err();
        assert_eq!(error, RightsError::UnknownSystemEntry, "{}", vector["name"]);
        assert_eq!(error_name(error), vector["error"]);
    }
    for history in list(&file["histories"]) {
        let mut rights = Rights::new(ReplicaId::from(bytes32(&history["owner"])));
        for entry in list(&history["entries"]) {
            let op: Op = decode(&bytes(&entry["op"])).unwrap();
            assert_eq!(op.check(), Ok(()));
            let outcome = match rights.admit(&AuthorId::from(bytes32(&entry["author"])), &op) {
                Ok(_) => "admitted",
                Err(error) => error_name(error),
            };
            assert_eq!(outcome, entry["outcome"], "{}", entry["name"]);
        }
        for write in list(&history["writes"]) {
            let op: Op = decode(&bytes(&write["op"])).unwrap();
            let timestamp = Timestamp(number(&write["timestamp"]));
            let allowed = rights.may_write(&AuthorId::from(bytes32(&write["author"])), &op, timestamp);
            assert_eq!(allowed, write["allowed"], "{write}");
        }
        for read in list(&history["reads"]) {
            let scope = rights.readable(&PeerId::from(bytes32(&read["reader"])), Timestamp(number(&read["now"])));
            let prefixes: Vec<Json> = scope.prefixes.iter().map(|prefix| hex(prefix.as_bytes())).collect();
            assert_eq!(Json::from(prefixes), read["prefixes"], "{read}");
        }
    }
}
