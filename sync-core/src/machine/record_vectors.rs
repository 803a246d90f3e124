//! `vectors/records.json`: what is saved of peers and of jobs, put together by hand.

use serde_json::{Value as Json, json};

use super::{
    super::{
        Config,
        peer::{KnownAddress, Parked},
    },
    *,
};
use crate::{
    golden::{bytes, golden, hex, list, sized, varint},
    model::{SecretKey, Timestamp},
    store::StoreId,
};

fn peer() -> PeerId {
    PeerId(SecretKey::from_bytes([1; 32]).public())
}

fn replica() -> ReplicaId {
    ReplicaId(SecretKey::from_bytes([2; 32]).public())
}

fn option(value: Option<Vec<u8>>) -> Vec<u8> {
    value.map_or(vec![0], |value| [vec![1], value].concat())
}

fn peers() -> Vec<(&'static str, PeerRecord, Vec<u8>)> {
    let address = |text: &str, given, worked: Option<u64>| {
        let known = KnownAddress {
            address: text.parse().unwrap(),
            given,
            worked: worked.map(Timestamp),
            // Not kept.
            error: Some("refused".into()),
        };
        (known, [sized(text), vec![u8::from(given)], option(worked.map(varint))].concat())
    };
    let known = [
        address("quic://192.0.2.1:4433", true, Some(1_700_000_000_000_000)),
        address("http://192.0.2.1:8080/", false, None),
    ];
    let all = PeerRecord {
        name: "Alice's laptop".into(),
        standing: Standing::Welcome,
        addresses: known.iter().map(|(known, _)| known.clone()).collect(),
    };
    let by_hand = [sized("Alice's laptop"), vec![0, 2], known[0].1.clone(), known[1].1.clone()].concat();
    let no_more = |standing| PeerRecord { standing, ..PeerRecord::default() };
    vec![
        ("nothing is known", PeerRecord::default(), vec![0, 0, 0]),
        ("a name and two addresses", all, by_hand),
        ("blocked", no_more(Standing::Blocked), vec![0, 1, 0]),
        ("removed", no_more(Standing::Removed), vec![0, 2, 0]),
    ]
}

fn jobs() -> Vec<(&'static str, JobRecord, Vec<u8>)> {
    let all = JobRecord {
        confirmed: 300,
        received: Some((StoreId([7; 16]), Position(70_000))),
        last_synced: Some(Timestamp(1_700_000_000_000_000)),
        last_error: Some("refused".into()),
        parked: None,
    };
    let by_hand = [
        varint(300),
        option(Some([&[7; 16][..], &varint(70_000)].concat())),
        option(Some(varint(1_700_000_000_000_000))),
        option(Some(sized("refused"))),
        vec![0],
    ]
    .concat();
    let parked = |parked, byte| (JobRecord { parked: Some(parked), ..JobRecord::default() }, vec![0, 0, 0, 0, 1, byte]);
    let (refused, refused_bytes) = parked(Parked::Refused, 0);
    let (version, version_bytes) = parked(Parked::Version, 1);
    let (no_way, no_way_bytes) = parked(Parked::NoWay, 2);
    vec![
        ("a new one", JobRecord::default(), vec![0; 5]),
        ("positions, a time and an error", all, by_hand),
        ("parked: refused", refused, refused_bytes),
        ("parked: no common version", version, version_bytes),
        ("parked: no way", no_way, no_way_bytes),
    ]
}

fn shown(record: &NodeRecord) -> Json {
    json!({ "kind": record.kind as u8, "name": hex(&record.name), "value": record.value.as_ref().map(hex) })
}

fn record(json: &Json) -> NodeRecord {
    let kind = [NodeKind::Peer, NodeKind::Job].into_iter().find(|kind| json["kind"] == *kind as u8).unwrap();
    NodeRecord { kind, name: bytes(&json["name"]).into(), value: Some(bytes(&json["value"]).into()) }
}

fn rejected() -> Vec<(&'static str, NodeRecord)> {
    let of_peer = |name: &[u8], value: Vec<u8>| NodeRecord {
        kind: NodeKind::Peer,
        name: Bytes::copy_from_slice(name),
        value: Some(value.into()),
    };
    let of_job = |name: &[u8], value: Vec<u8>| NodeRecord { kind: NodeKind::Job, ..of_peer(name, value) };
    let (id, key) = (*peer().as_bytes(), job_name(&replica(), &peer()));
    let cut = |mut bytes: Vec<u8>| {
        bytes.pop();
        bytes
    };
    let with_address = |text: &[u8]| [&[0, 0, 1][..], &sized(text), &[1, 0]].concat();
    vec![
        ("a peer with an id of 31 bytes", of_peer(&id[..31], vec![0, 0, 0])),
        ("a peer without a value", of_peer(&id, Vec::new())),
        ("a peer that is cut", of_peer(&id, cut(peers().swap_remove(1).2))),
        ("a name that is no text", of_peer(&id, vec![1, 0xff, 0, 0])),
        ("a standing that there is not", of_peer(&id, vec![0, 3, 0])),
        ("more addresses than bytes", of_peer(&id, [&[0, 0][..], &[0xff; 9], &[1]].concat())),
        ("an address that is none", of_peer(&id, with_address(b"nowhere"))),
        ("an address that is too long", of_peer(&id, with_address(&[&b"quic:"[..], &[b'a'; 2_044]].concat()))),
        ("a job under half a name", of_job(&key[..32], vec![0; 5])),
        ("a job without a value", of_job(&key, Vec::new())),
        ("a job that is cut", of_job(&key, cut(jobs().swap_remove(1).2))),
        ("a position of more than ten bytes", of_job(&key, [&[0xff; 10][..], &[1, 0, 0, 0, 0]].concat())),
        ("an option of 2", of_job(&key, vec![0, 2, 0, 0, 0])),
        ("a reason that there is not", of_job(&key, vec![0, 0, 0, 0, 1, 3])),
    ]
}

fn make() -> Json {
    let record = |kind, name: Bytes, value: Vec<u8>| NodeRecord { kind, name, value: Some(value.into()) };
    let peers = peers().into_iter().map(|(name, _, value)| {
        let record = record(NodeKind::Peer, Bytes::copy_from_slice(peer().as_bytes()), value);
        json!({ "name": name, "record": shown(&record) })
    });
    let jobs = jobs().into_iter().map(|(name, _, value)| {
        json!({ "name": name, "record": shown(&record(NodeKind::Job, job_name(&replica(), &peer()), value)) })
    });
    let rejected = rejected()
        .into_iter()
        .map(|(name, record)| json!({ "name": name, "record": shown(&record), "error": "left aside" }));
    json!({
        "peer": peer().to_string(), "replica": replica().to_string(), "peers": peers.collect::<Vec<_>>(),
        "jobs": jobs.collect::<Vec<_>>(), "rejected": rejected.collect::<Vec<_>>(),
    })
}

/// A machine that was started with a record.
fn restored(record: NodeRecord) -> Synchronizer {
    let config = Config { key: SecretKey::from_bytes([9; 32]), store: StoreId([9; 16]), incarnation: 1, seed: [9; 32] };
    let mut machine = Synchronizer::new(config, Now { elapsed: Duration::ZERO, wall: Timestamp(1) });
    machine.restored(vec![record]);
    machine
}

#[test]
fn the_vectors_of_records_hold() {
    let file = golden("records.json", &make());
    for (vector, (name, record_of, _)) in list(&file["peers"]).iter().zip(peers()) {
        assert_eq!(vector["name"], name);
        assert_eq!(shown(&peer_record(&peer(), &record_of)), vector["record"], "{name}");
        let machine = restored(record(&vector["record"]));
        let kept = |address: &KnownAddress| KnownAddress { error: None, ..address.clone() };
        let expected = PeerRecord { addresses: record_of.addresses.iter().map(kept).collect(), ..record_of };
        assert_eq!(machine.peers[&peer()].record, expected, "{name}");
    }
    for (vector, (name, record_of, _)) in list(&file["jobs"]).iter().zip(jobs()) {
        assert_eq!(vector["name"], name);
        assert_eq!(shown(&job_record(&replica(), &peer(), &record_of)), vector["record"], "{name}");
        let machine = restored(record(&vector["record"]));
        assert_eq!(machine.jobs[&(replica(), peer())].record, record_of, "{name}");
    }
    for vector in list(&file["rejected"]) {
        let machine = restored(record(&vector["record"]));
        assert!(machine.peers.is_empty() && machine.jobs.is_empty(), "{}", vector["name"]);
    }
}
