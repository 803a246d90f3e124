//! `vectors/content_rows.json`: the rows of content, put together by hand from the table in `rows.rs`, and damaged
//! ones, each with the error that reading gives.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::*;
use crate::{
    golden::{bytes, golden, hex, list, sized, text, varint},
    model::{PeerId, PublicKey},
    store::{Engine, content::tests::MapEngine, rows::KeyNo},
};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

const REPLICA: ReplicaNo = ReplicaNo(1);
const NUMBER: [u8; 4] = [0, 0, 0, 1];
const LEN: u64 = 5_000_000;

fn hash(number: u8) -> Hash {
    Hash([number; 32])
}

/// What the third content stands on.
fn over() -> Overlay {
    Overlay { base: hash(2).into(), own: vec![(2u64, 5u64), (7, 8)].try_into().unwrap() }
}

/// What is here of a content, and its row by hand.
fn contents_by_hand() -> Vec<(&'static str, ContentRow, Vec<u8>)> {
    let checkpoint = [vec![4; 32], varint(80_000), vec![1, 2, 4], sized([7; 64])].concat();
    let partial = |name, came_for: CameFor, by_hand: &[u8]| {
        let saved = postcard::from_bytes(&checkpoint).unwrap();
        (name, ContentRow::Partial(saved, came_for), [&[2][..], by_hand, &checkpoint].concat())
    };
    let complete = |name, len: u64, outboard: &[u8]| {
        let row = ContentRow::Complete { len, outboard: outboard.to_vec(), over: None };
        (name, row, [&[1][..], &len.to_be_bytes(), outboard].concat())
    };
    let overlay = ContentRow::Complete { len: LEN, outboard: Vec::new(), over: Some(over()) };
    let replica = ReplicaId::from([9; 32]);
    let of_overlay = [&[3][..], &LEN.to_be_bytes(), &[2; 32], &[2, 2, 5, 7, 8], &[0]].concat();
    vec![
        complete("a content of one group", 1, &[]),
        complete("a content with its outboard", 20_000, &[7; 64]),
        ("a content that stands on another", overlay, of_overlay),
        partial("a download of which nothing came", CameFor::Nobody, &[0]),
        partial("a download for one replica", CameFor::One(replica), &[&[1][..], replica.as_bytes()].concat()),
        partial("a download for several replicas", CameFor::Several, &[2]),
    ]
}

/// The key of the row of an entry of the replica, without the byte of its space.
fn slot() -> Vec<u8> {
    [&NUMBER[..], &[2, b'a', 0, 0], &[0, 0, 0, 1]].concat()
}

/// The rows that are made of a content that an entry of here refers to, of one that stands on another, and of one that
/// is wanted and has an older version.
fn made() -> Rows {
    let engine = MapEngine::default();
    let entry = entry_key::value(REPLICA, &[2, b'a'], KeyNo(1));
    let refers = |hash: u8, len: u64| Reference { hash: Hash([hash; 32]), len, entry: &entry };
    let peer = Origin::Peer(PeerId(PublicKey([8; 32])));
    engine
        .write(&mut |rows| {
            put_complete(rows, &hash(1), 1, Vec::new())?;
            refer(rows, &refers(1, 1), Origin::Local, None)?;
            put_complete(rows, &hash(2), LEN, Vec::new())?;
            assert!(put_overlay(rows, &hash(3), LEN, Vec::new(), over())?);
            refer(rows, &refers(4, LEN), peer, Some(hash(1)))
        })
        .unwrap();
    let mut rows = Rows::new();
    let snapshot = engine.snapshot().unwrap();
    snapshot
        .scan(&[], None, Scan::Forward, &mut |key, value| {
            rows.insert(key.to_vec(), value.to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

/// The same by hand.
fn by_hand() -> Rows {
    let [first, second, third, fourth] = [[1; 32], [2; 32], [3; 32], [4; 32]];
    let mut rows = Rows::new();
    let mut row = |key: &[&[u8]], value: &[&[u8]]| rows.insert(key.concat(), value.concat());
    row(&[&[20], &first], &[&[1], &1u64.to_be_bytes()]);
    row(&[&[20], &second], &[&[1], &LEN.to_be_bytes()]);
    row(&[&[20], &third], &[&contents_by_hand()[2].2]);
    row(&[&[21], &first, &slot()], &[&1u64.to_be_bytes()]);
    row(&[&[21], &fourth, &slot()], &[&LEN.to_be_bytes()]);
    for hash in [first, second, third] {
        row(&[&[23], &hash], &[]);
    }
    row(&[&[24], &NUMBER, &fourth], &[&LEN.to_be_bytes(), &first]);
    row(&[&[25], &first, &NUMBER], &[]);
    row(&[&[26], &first, &NUMBER, &fourth], &[]);
    row(&[&[27], &second, &third], &[]);
    rows
}

fn name_of(space: u8) -> &'static str {
    match space {
        CONTENT => "content",
        REFERENCE => "reference",
        DOOMED => "doomed",
        WANT => "want",
        HELD => "held",
        BASE => "base",
        STANDING => "standing",
        other => panic!("space {other}"),
    }
}

/// Reads everything that is in these rows, and tells how that ends.
fn read(rows: &Rows) -> Result<(), String> {
    let read = MapEngine::default().write(&mut |engine| {
        rows.iter().try_for_each(|(key, value)| engine.put(key, value))?;
        doomed(engine, None, usize::MAX)?;
        wants(engine, None, usize::MAX)?;
        for hash in contents(engine)?.into_keys() {
            ContentRow::load(engine, &hash)?;
            referring(engine, &hash)?;
            standing_on(engine, &hash)?;
            spare(engine, &hash)?;
        }
        Ok(())
    });
    read.map_err(|error| match error {
        StoreError::Corrupt(what) => format!("corrupt: {what}"),
        other => panic!("{other}"),
    })
}

/// Rows that are put beside the others, or in the place of one of them.
fn damaged() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let row = |name, key: &[&[u8]], value: &[&[u8]]| (name, key.concat(), value.concat());
    let content = |name, value: &[&[u8]]| row(name, &[&[20], &[5; 32]], value);
    let (want, len) = ([&[24][..], &NUMBER, &[4; 32]].concat(), LEN.to_be_bytes());
    let by_hand = contents_by_hand();
    let (overlay, download) = (&by_hand[2].2, &by_hand[4].2);
    // A download up to its runs of groups.
    let head = [&[2, 0][..], &[4; 32], &varint(80_000)].concat();
    vec![
        content("a content's row without a value", &[]),
        content("a kind of content that there is not", &[&[4], &len]),
        content("half a length", &[&[1], &len[..4]]),
        content("an overlay on 31 bytes of a hash", &[&[3], &len, &[2; 31]]),
        content("an overlay that is cut", &[&overlay[..overlay.len() - 1]]),
        content("a byte more behind an overlay", &[overlay, &[0]]),
        content("runs of an overlay that touch", &[&[3], &len, &[2; 32], &[2, 2, 5, 5, 8], &[0]]),
        content("groups of an overlay behind the end", &[&[3], &1u64.to_be_bytes(), &[2; 32], &[1, 0, 2], &[0]]),
        content("a download for nobody that there is", &[&[2, 3], &head[2..], &[1, 2, 4, 0]]),
        content("a download that is cut", &[&download[..download.len() - 1]]),
        content("runs of a download that touch", &[&head, &[2, 0, 1, 1, 2], &[0]]),
        row("the key of a content with 31 bytes of its hash", &[&[20], &[5; 31]], &[&[1], &len]),
        row("a reference of half a replica", &[&[21], &[1; 32], &[0, 0]], &[&len]),
        row("a doomed content with 31 bytes of its hash", &[&[23], &[5; 31]], &[]),
        row("a want with half a length", &[&want], &[&len[..4]]),
        row("a want with 31 bytes of the older version's hash", &[&want], &[&len, &[1; 31]]),
        row("a byte more behind a want", &[&want], &[&len, &[1; 32], &[0]]),
        row("a want with 31 bytes of its hash", &[&[24], &NUMBER, &[4; 31]], &[&len]),
        row("a want with 33 bytes of its hash", &[&[24], &NUMBER, &[4; 33]], &[&len]),
        row("a holding of half a replica", &[&[25], &[1; 32], &[0, 0]], &[]),
        row("31 bytes of the hash of what stands on a content", &[&[27], &[2; 32], &[3; 31]], &[]),
    ]
}

fn make() -> Json {
    let of_contents = contents_by_hand().into_iter().map(|(name, _, row)| json!({ "name": name, "value": hex(row) }));
    let rows = made().into_iter().map(|(key, value)| {
        let space = name_of(key[0]);
        json!({ "space": space, "key": hex(key), "value": hex(value) })
    });
    let rejected = damaged().into_iter().map(|(name, key, value)| {
        let mut rows = made();
        rows.insert(key.clone(), value.clone());
        let error = read(&rows).expect_err(name);
        json!({ "name": name, "key": hex(key), "value": hex(value), "error": error })
    });
    json!({
        "contents": of_contents.collect::<Vec<_>>(), "accepted": rows.collect::<Vec<_>>(),
        "rejected": rejected.collect::<Vec<_>>(),
    })
}

#[test]
fn the_vectors_of_content_rows_hold() {
    let file = golden("content_rows.json", &make());
    for (vector, (name, row, _)) in list(&file["contents"]).iter().zip(contents_by_hand()) {
        assert_eq!(vector["name"], name);
        let value = bytes(&vector["value"]);
        assert_eq!(row.encode(), value, "{name}");
        assert_eq!(ContentRow::decode(&value).unwrap(), row, "{name}");
    }
    let rows: Rows = list(&file["accepted"]).iter().map(|row| (bytes(&row["key"]), bytes(&row["value"]))).collect();
    assert_eq!(rows, by_hand());
    assert_eq!(read(&rows), Ok(()));
    for vector in list(&file["rejected"]) {
        let mut damaged = rows.clone();
        damaged.insert(bytes(&vector["key"]), bytes(&vector["value"]));
        assert_eq!(read(&damaged), Err(text(&vector["error"]).into()), "{}", vector["name"]);
    }
}
