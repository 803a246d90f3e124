//! `messages.json`: a frame of every kind, without its length.

use bytes::Bytes;
use serde_json::{Value as Json, json};
use sync_core::{
    machine::{
        Direction,
        limits::MESSAGE_SYMBOLS,
        wire::{
            Hello, Mark, Message, Open, Ranges, Refusal, RefusalReason, Refused, Solved, Symbols, WireError,
            decode_bundles, encode_bundles,
        },
    },
    model::{Bundle, Digest, Hash, ReplicaId, Signature, SlotKey, SlotRange},
    store::{
        Claim, Have, Position, ShortId, StoreId,
        coded::{MAX_SYMBOLS, Symbol},
    },
};

use super::{commits::commit, handshake::hello, *};

fn digest_json(digest: &Digest) -> Json {
    json!({ "hash": digest.hash.to_string(), "count": digest.count })
}

fn ids_json(ids: &[ShortId]) -> Vec<Json> {
    ids.iter().map(|id| hex(id.0)).collect()
}

fn mark_json(mark: &Mark) -> Json {
    json!({
        "durable": mark.durable, "received": mark.received, "through": mark.through.map(|position| position.0),
        "root": mark.root.as_ref().map(digest_json), "synced": mark.synced,
    })
}

fn open_json(open: &Open) -> Json {
    let credentials: Vec<Json> = open.credentials.iter().map(|bundle| hex(encode(bundle))).collect();
    json!({
        "replica": open.replica.to_string(), "store": hex(open.store.0), "head": open.head.0,
        "root": digest_json(&open.root), "have": open.have.map(|(store, position)| json!([hex(store.0), position.0])),
        "direction": format!("{:?}", open.direction), "asks": open.asks, "credentials": credentials,
    })
}

fn claim_json(claim: &Claim) -> Json {
    let (start, end) = (hex(claim.range.start.as_bytes()), claim.range.end.as_ref().map(|end| hex(end.as_bytes())));
    match &claim.have {
        Have::Digest(digest) => json!({ "start": start, "end": end, "digest": digest_json(digest) }),
        Have::Ids(ids) => json!({ "start": start, "end": end, "ids": ids_json(ids) }),
        Have::Final(ids) => json!({ "start": start, "end": end, "final": ids_json(ids) }),
    }
}

/// What a message says, in words and numbers.
fn shown(message: &Message) -> Json {
    match message {
        Message::Hello(hello) => {
            let addresses: Vec<&str> = hello.addresses.iter().map(|address| address.as_str()).collect();
            json!({
                "oldest": hello.oldest, "newest": hello.newest, "peer": hello.peer.to_string(),
                "store": hex(hello.store.0), "incarnation": hello.incarnation, "nonce": hex(hello.nonce),
                "addresses": addresses,
            })
        }
        Message::Proof(proof) => json!({ "signature": hex(proof.signature.0) }),
        Message::Ping(number) | Message::Pong(number) => json!(number),
        Message::Open(open) | Message::Opened(open) => open_json(open),
        Message::Refuse(refusal) => json!(format!("{refusal:?}")),
        Message::Entries(mark, bundles) => json!({ "mark": mark_json(mark), "bundles": hex(bundles) }),
        Message::Mark(mark) => mark_json(mark),
        Message::Ranges(ranges) => {
            let claims: Vec<Json> = ranges.claims.iter().map(claim_json).collect();
            json!({ "first": ranges.first, "more": ranges.more, "claims": claims })
        }
        Message::Refused(refused) => {
            let entries: Vec<Json> =
                refused.entries.iter().map(|(id, reason)| json!([hex(id.0), format!("{reason:?}")])).collect();
            json!({ "count": refused.count, "entries": entries })
        }
        Message::Symbols(symbols) => {
            let shown: Vec<Json> = symbols
                .symbols
                .iter()
                .map(|symbol| json!([hex(symbol.ids), hex(symbol.checks), symbol.count]))
                .collect();
            json!({ "first": symbols.first, "more": symbols.more, "from": symbols.from, "symbols": shown })
        }
        Message::Solved(Solved::More(count)) => json!({ "more": count }),
        Message::Solved(Solved::Lacking(ids)) => json!({ "lacking": ids_json(ids) }),
    }
}

fn digest(n: u8) -> Digest {
    Digest { hash: Hash([n; 32]), count: u64::from(n) * 100 }
}

fn range(start: &[u8], end: &[u8]) -> SlotRange {
    SlotRange { start: SlotKey::from_bytes(start.to_vec()), end: Some(SlotKey::from_bytes(end.to_vec())) }
}

fn credential() -> Bundle {
    commit(1, 1, 7, vec![put([0, b'x'], "not a grant, but a bundle")]).to_bundle()
}

fn open(have: Option<(StoreId, Position)>, credentials: Vec<Bundle>) -> Open {
    let replica = ReplicaId(key(1).public());
    Open {
        replica,
        store: StoreId([5; 16]),
        head: Position(1_000),
        root: digest(3),
        have,
        direction: Direction::Both,
        asks: false,
        credentials,
    }
}

fn messages() -> Vec<(&'static str, Message)> {
    let proof = sync_core::machine::wire::Proof { signature: Signature([0x5a; 64]) };
    let mark =
        Mark { durable: 300, received: 301, through: Some(Position(70_000)), root: Some(digest(3)), synced: true };
    let early = Mark { durable: 0, received: 0, through: None, root: None, synced: false };
    let bundles = [
        commit(1, 2, 1_000, vec![put("a", "1"), delete("b")]).to_bundle(),
        commit(1, 3, 2_000, vec![put("c", "3")]).to_bundle(),
    ];
    let ids = vec![ShortId([1; 16]), ShortId([2; 16])];
    let claims = vec![
        Claim { range: range(b"", &[1]), have: Have::Digest(digest(1)) },
        Claim { range: range(&[1], &[2, b'k']), have: Have::Ids(ids.clone()) },
        Claim { range: SlotRange { start: SlotKey::from_bytes(vec![3]), end: None }, have: Have::Final(Vec::new()) },
    ];
    let symbols = vec![
        Symbol { ids: [1; 16], checks: [2; 4], count: 100_000 },
        Symbol { ids: [3; 16], checks: [4; 4], count: 0 },
    ];
    let refused = vec![(ids[0], RefusalReason::Rights), (ids[1], RefusalReason::Future)];
    vec![
        ("a hello", Message::Hello(hello(1, &[]))),
        (
            "a hello with addresses",
            Message::Hello(Hello { newest: 300, ..hello(2, &["quic://192.0.2.1:4433", "https://hub.example/notes"]) }),
        ),
        ("a proof", Message::Proof(proof)),
        ("a ping", Message::Ping(0)),
        ("a ping of the greatest number", Message::Ping(u64::MAX)),
        ("a pong", Message::Pong(127)),
        ("an open on first contact", Message::Open(open(None, vec![credential()]))),
        ("an open with a position", Message::Open(open(Some((StoreId([6; 16]), Position(999))), Vec::new()))),
        ("its answer", Message::Opened(open(None, Vec::new()))),
        ("an open that only pulls", Message::Open(Open { direction: Direction::Pull, ..open(None, Vec::new()) })),
        (
            "an open that only pushes and asks",
            Message::Open(Open { direction: Direction::Push, asks: true, ..open(None, Vec::new()) }),
        ),
        ("not available", Message::Refuse(Refusal::NotAvailable)),
        ("a duplicate", Message::Refuse(Refusal::Duplicate)),
        ("busy", Message::Refuse(Refusal::Busy)),
        ("entries", Message::Entries(mark, encode_bundles(&bundles))),
        ("no entries", Message::Entries(early, encode_bundles(&[]))),
        ("a mark", Message::Mark(mark)),
        ("a mark while reconciling", Message::Mark(early)),
        ("ranges", Message::Ranges(Ranges { first: true, more: false, claims })),
        ("no ranges", Message::Ranges(Ranges { first: false, more: true, claims: Vec::new() })),
        ("refused entries", Message::Refused(Refused { count: 40, entries: refused })),
        ("symbols", Message::Symbols(Symbols { first: true, more: false, from: 0, symbols: symbols.clone() })),
        ("further symbols", Message::Symbols(Symbols { first: false, more: true, from: 64, symbols })),
        ("more symbols are needed", Message::Solved(Solved::More(432))),
        ("what the symbols tell", Message::Solved(Solved::Lacking(ids))),
    ]
}

fn rejected() -> Vec<(&'static str, Vec<u8>, WireError)> {
    let cut = |message: &Message| {
        let frame = message.encode();
        frame[..frame.len() - 1].to_vec()
    };
    let longer = |message: &Message| [&message.encode()[..], &[0]].concat();
    let claim = |range: SlotRange| Claim { range, have: Have::Digest(digest(1)) };
    let ranges = |claims: Vec<Claim>| Message::Ranges(Ranges { first: true, more: false, claims }).encode().to_vec();
    let many = (0..257u16).map(|n| claim(range(&n.to_be_bytes(), &(n + 1).to_be_bytes()))).collect();
    let refused = |len: usize| Refused { count: 33, entries: vec![(ShortId([0; 16]), RefusalReason::Rights); len] };
    let symbols = |first: bool, from: usize, count: usize| {
        let symbols = vec![Symbol { ids: [7; 16], checks: [7; 4], count: 7 }; count];
        Message::Symbols(Symbols { first, more: false, from: from as u32, symbols }).encode().to_vec()
    };
    let address = "quic://192.0.2.1:4433";
    let mut frames: Vec<_> = messages()
        .into_iter()
        .filter(|(_, message)| !matches!(message, Message::Entries(..)))
        .flat_map(|(_, message)| {
            let kind = message.encode()[0];
            [("cut by a byte", cut(&message), kind), ("with a byte behind it", longer(&message), kind)]
        })
        .collect();
    frames.sort_by_key(|frame| (frame.2, frame.0));
    frames.dedup_by_key(|frame| (frame.2, frame.0));
    frames.extend([
        ("nine addresses", Message::Hello(hello(1, &[address; 9])).encode().to_vec(), 1),
        ("versions in the wrong order", Message::Hello(Hello { oldest: 2, ..hello(1, &[]) }).encode().to_vec(), 1),
        ("seventeen credentials", Message::Open(open(None, vec![credential(); 17])).encode().to_vec(), 16),
        ("a refusal that there is not", vec![18, 3], 18),
        ("a mark with a flag of 2", [&[20, 0, 0, 0, 0][..], &[2]].concat(), 20),
        ("an option of 2", vec![20, 0, 0, 2, 1, 0, 0], 20),
        ("ranges that overlap", ranges(vec![claim(range(&[1], &[3])), claim(range(&[2], &[4]))]), 21),
        ("ranges that do not ascend", ranges(vec![claim(range(&[3], &[4])), claim(range(&[1], &[2]))]), 21),
        ("an empty range", ranges(vec![claim(range(&[3], &[3]))]), 21),
        ("257 claims", ranges(many), 21),
        ("33 refusals", Message::Refused(refused(33)).encode().to_vec(), 22),
        ("no symbols", vec![23, 1, 0, 0, 0], 23),
        ("8,193 symbols in one message", symbols(true, 0, MESSAGE_SYMBOLS + 1), 23),
        ("a symbol behind the last", symbols(false, MAX_SYMBOLS, 1), 23),
        ("a beginning that is not the first symbol", symbols(true, 1, 1), 23),
        ("49,153 symbols needed", Message::Solved(Solved::More(49_153)).encode().to_vec(), 24),
        ("ids that do not ascend", Message::Solved(Solved::Lacking(vec![ShortId([1; 16]); 2])).encode().to_vec(), 24),
        ("a length of all ones", [&[22, 1][..], &[0xff; 9], &[1]].concat(), 22),
    ]);
    let mut rejected = vec![("no bytes", Vec::new(), WireError::Empty)];
    rejected.extend(frames.into_iter().map(|(name, frame, kind)| (name, frame, WireError::Malformed(kind))));
    rejected
}

fn error_name(error: WireError) -> String {
    match error {
        WireError::Malformed(kind) => format!("malformed {kind}"),
        WireError::Empty => "empty".into(),
    }
}

fn make() -> Json {
    let accepted: Vec<Json> = messages()
        .into_iter()
        .map(|(name, message)| {
            let frame = message.encode();
            json!({
                "name": name, "kind": frame[0], "message": message.name(), "frame": hex(&frame),
                "fields": shown(&message),
            })
        })
        .collect();
    let rejected: Vec<Json> = rejected()
        .into_iter()
        .map(|(name, frame, error)| json!({ "name": name, "frame": hex(frame), "error": error_name(error) }))
        .collect();
    let bundles: Vec<Json> =
        [("cut", vec![1]), ("a byte behind them", vec![0, 0]), ("a length of all ones", vec![0xff; 10])]
            .into_iter()
            .map(|(name, bundles)| json!({ "name": name, "bundles": hex(bundles), "error": "malformed 19" }))
            .collect();
    json!({
        "accepted": accepted, "rejected": rejected, "rejected_bundles_of_entries": bundles,
        "skipped": ["c8", "c8010203", "00", "3f0000"],
    })
}

#[test]
fn b79_the_vectors_of_messages_hold() {
    let file = golden("messages.json", &make());
    for vector in list(&file["accepted"]) {
        let frame = Bytes::from(bytes(&vector["frame"]));
        let message = Message::decode(frame.clone()).unwrap().unwrap();
        assert_eq!(message.encode(), frame, "{}", vector["name"]);
        assert_eq!(shown(&message), vector["fields"], "{}", vector["name"]);
        assert_eq!(message.name(), vector["message"]);
        assert_eq!(u64::from(frame[0]), number(&vector["kind"]));
        if let Message::Entries(_, bundles) = message {
            for bundle in decode_bundles(&bundles).unwrap() {
                bundle.verify(ReplicaId(key(1).public()), &mut Default::default()).unwrap();
            }
        }
    }
    for vector in list(&file["rejected"]) {
        let error = Message::decode(bytes(&vector["frame"]).into()).expect_err(vector["name"].as_str().unwrap());
        assert_eq!(error_name(error), vector["error"], "{}", vector["name"]);
    }
    for vector in list(&file["rejected_bundles_of_entries"]) {
        let error = decode_bundles(&bytes(&vector["bundles"])).expect_err(vector["name"].as_str().unwrap());
        assert_eq!(error_name(error), vector["error"], "{}", vector["name"]);
    }
    for frame in list(&file["skipped"]) {
        assert_eq!(Message::decode(bytes(frame).into()), Ok(None), "{frame}");
    }
}
