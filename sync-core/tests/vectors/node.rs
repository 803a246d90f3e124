//! `node.json`: what a node keeps for itself, but for what is in `records.json` and `tokens.json`: keys, settings, the
//! markers of dropped replicas, notes, and the state of transports.
//!
//! Each record is put into a store by itself, and what counts is what a node that starts on that store says otherwise
//! than one without it. `how` tells whether a node writes the record just so (`written`), with a key that it draws
//! (`drawn`), or never, and reads it all the same (`read`).

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use serde_json::{Value as Json, json};
use sync_core::{
    PeerAddress,
    machine::Direction,
    manager::{Access, DownloadPolicy, ManagerError, Replica, SyncManager},
    model::{PeerId, Prefix, ReplicaId, Timestamp},
    store::{NodeKind, NodeRecord, ReplicaStore, StoreError},
    transport::{
        Connection, Incoming, SyncTransport, TransportBuilder, TransportContext, TransportError, TransportErrorKind,
        TransportState,
    },
};

use super::{
    golden::{sized, text, varint},
    *,
};

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

const KINDS: [NodeKind; 5] = [NodeKind::Key, NodeKind::Transport, NodeKind::Setting, NodeKind::Removed, NodeKind::Note];

fn replica() -> ReplicaId {
    ReplicaId(key(2).public())
}

fn of(kind: NodeKind, name: &[&[u8]], value: Vec<u8>) -> NodeRecord {
    NodeRecord { kind, name: name.concat().into(), value: Some(value.into()) }
}

/// A transport that goes nowhere, with what it wants kept.
#[derive(Debug, Clone, Default)]
struct Nowhere(Arc<Mutex<Option<TransportState>>>);

#[async_trait]
impl SyncTransport for Nowhere {
    fn schemes(&self) -> &[&'static str] {
        &["nowhere"]
    }

    async fn dial(&self, _: &PeerAddress) -> Result<Box<dyn Connection>, TransportError> {
        Err(TransportError::new(TransportErrorKind::Unreachable, "nobody is nowhere"))
    }

    async fn listen(&self, _: Incoming) -> Result<Vec<PeerAddress>, TransportError> {
        Ok(Vec::new())
    }

    async fn stop_listening(&self) -> Result<(), TransportError> {
        Ok(())
    }

    fn state(&self) -> Option<TransportState> {
        self.0.lock().unwrap().clone()
    }

    async fn close(&self) {}
}

#[async_trait]
impl TransportBuilder for Nowhere {
    async fn build(self: Box<Self>, context: TransportContext) -> Result<Arc<dyn SyncTransport>, TransportError> {
        if context.state.is_some() {
            *self.0.lock().unwrap() = context.state;
        }
        Ok(Arc::new(*self))
    }
}

/// A node on a store with this record, and its handle to the replica.
async fn start(record: Option<NodeRecord>) -> Result<(SyncManager, Replica), ManagerError> {
    let store = store_mem::open()?;
    store.create_replica(replica(), record.into_iter().collect()).await?;
    let node = SyncManager::builder(Arc::new(store)).wall_clock(|| NOW).spawn().await?;
    let handle = node.open_replica(replica()).await?;
    Ok((node, handle))
}

/// All that it says.
async fn told(record: Option<NodeRecord>) -> Result<Json, ManagerError> {
    let (node, replica) = start(record).await?;
    let transport = Nowhere::default();
    node.register_transport("nowhere", transport.clone()).await?;
    let state = transport.state().map(|state| json!({ "kind": state.kind, "bytes": hex(state.bytes) }));
    let id = Some(node.node_id()).filter(|id| *id == PeerId(key(1).public())).map(|id| id.to_string());
    let authors: Vec<String> = node.authors().await?.iter().skip(1).map(|author| author.to_string()).collect();
    let listed = |prefixes: &[Prefix]| -> Vec<Json> { prefixes.iter().map(|prefix| hex(prefix.as_bytes())).collect() };
    let downloads = match replica.download_policy() {
        DownloadPolicy::EverythingExcept(prefixes) => json!({ "everything_except": listed(&prefixes) }),
        DownloadPolicy::NothingExcept(prefixes) => json!({ "nothing_except": listed(&prefixes) }),
    };
    let settings = node.store().node_records(NodeKind::Setting).await?;
    let incarnation = settings.iter().find(|record| record.name == b"incarnation".as_slice()).unwrap();
    let incarnation = u64::from_le_bytes(incarnation.value.as_deref().unwrap().try_into().unwrap());
    let interval = u64::try_from(node.sync_interval().await?.as_millis()).unwrap();
    let direction = replica.direction().await?;
    let setting = node.setting("language").await?.map(hex);
    let note = replica.note("how far").await?.map(hex);
    let shares = replica.share(Access::WRITE).await.is_ok();
    Ok(json!({
        "node": id, "authors": authors, "shares": shares, "incarnation": incarnation, "interval": interval,
        "direction": direction, "downloads": downloads, "setting": setting, "note": note, "transport": state,
    }))
}

/// What a node with this record says otherwise than one without.
async fn says(record: NodeRecord, without: &Json) -> Result<Json, String> {
    let with = told(Some(record)).await.map_err(|error| match error {
        ManagerError::Store(StoreError::Corrupt(what)) => format!("corrupt: {what}"),
        other => panic!("{other}"),
    })?;
    let fields = with.as_object().unwrap().iter();
    let others = fields.filter(|(field, value)| without[field.as_str()] != **value);
    Ok(others.map(|(field, value)| (field.clone(), value.clone())).collect())
}

/// How a node ends that has a damaged record, or that it takes no notice of it.
async fn refused(record: NodeRecord, without: &Json) -> String {
    match says(record, without).await {
        Err(error) => error,
        Ok(says) => {
            assert_eq!(says, json!({}));
            "left aside".into()
        }
    }
}

fn policies() -> [DownloadPolicy; 3] {
    let prefix = |text: &'static str| Prefix::new(text).unwrap();
    [
        DownloadPolicy::EverythingExcept(Vec::new()),
        DownloadPolicy::EverythingExcept(vec![prefix("video/"), prefix("tmp")]),
        DownloadPolicy::NothingExcept(vec![prefix("notes")]),
    ]
}

async fn kept(node: &SyncManager) -> Vec<NodeRecord> {
    let mut records = Vec::new();
    for kind in KINDS {
        records.extend(node.store().node_records(kind).await.unwrap());
    }
    records
}

/// What a node writes of all that is asked of it, up to the end of its replica.
async fn written() -> Vec<NodeRecord> {
    let (node, replica) = start(None).await.unwrap();
    node.import_author(key(3)).await.unwrap();
    node.set_setting("language", Some("de".into())).await.unwrap();
    node.set_sync_interval(Duration::from_secs(90)).await.unwrap();
    let state = TransportState { kind: "nowhere/1".into(), bytes: vec![7, 8] };
    node.register_transport("nowhere", Nowhere(Arc::new(Mutex::new(Some(state))))).await.unwrap();
    let mut transaction = replica.write();
    transaction.note("how far", vec![9u8]);
    transaction.commit().await.unwrap();
    let mut written = Vec::new();
    for direction in [Direction::Both, Direction::Pull, Direction::Push] {
        replica.set_direction(direction).await.unwrap();
        written.extend(kept(&node).await);
    }
    for policy in policies() {
        replica.set_download_policy(policy).await.unwrap();
        written.extend(kept(&node).await);
    }
    node.drop_replica(replica.id()).await.unwrap();
    written.extend(kept(&node).await);
    written
}

/// Records by hand, how a node comes by them, and what it says of them.
fn accepted() -> Vec<(&'static str, &'static str, NodeRecord, Json)> {
    let (id, third) = (*replica().as_bytes(), author(3));
    let direction = |value: Vec<u8>| of(NodeKind::Setting, &[b"direction ", &id], value);
    let policy = |value: Vec<u8>| of(NodeKind::Setting, &[b"download ", &id], value);
    let state = [sized("nowhere/1"), sized([7, 8])].concat();
    let transport = |value: Vec<u8>| of(NodeKind::Transport, &[b"nowhere"], value);
    let says_state = json!({ "transport": { "kind": "nowhere/1", "bytes": "0708" } });
    vec![
        (
            "the node's key",
            "drawn",
            of(NodeKind::Key, &[b"node"], vec![1; 32]),
            json!({ "node": PeerId(key(1).public()).to_string() }),
        ),
        (
            "the key of a replica's owner",
            "drawn",
            of(NodeKind::Key, &[b"replica ", &id], vec![2; 32]),
            json!({ "shares": true }),
        ),
        (
            "an author's key",
            "written",
            of(NodeKind::Key, &[b"author ", third.as_bytes()], vec![3; 32]),
            json!({ "authors": [third.to_string()] }),
        ),
        // The next start is the second.
        (
            "the first start",
            "written",
            of(NodeKind::Setting, &[b"incarnation"], 1u64.to_le_bytes().to_vec()),
            json!({ "incarnation": 2 }),
        ),
        ("both ways, as without a record", "written", direction(vec![0]), json!({})),
        ("a replica that pulls", "written", direction(vec![1]), json!({ "direction": "pull" })),
        ("a replica that pushes", "written", direction(vec![2]), json!({ "direction": "push" })),
        ("a byte more behind a direction", "read", direction(vec![2, 0]), json!({ "direction": "push" })),
        ("all contents, as without a record", "written", policy(vec![0, 0]), json!({})),
        (
            "all contents but some",
            "written",
            policy([vec![0, 2], sized("video/"), sized("tmp")].concat()),
            json!({ "downloads": { "everything_except": [hex("video/"), hex("tmp")] } }),
        ),
        (
            "no contents but some",
            "written",
            policy([vec![1, 1], sized("notes")].concat()),
            json!({ "downloads": { "nothing_except": [hex("notes")] } }),
        ),
        (
            "an interval",
            "written",
            of(NodeKind::Setting, &[b"sync interval"], 90_000u64.to_le_bytes().to_vec()),
            json!({ "interval": 90_000 }),
        ),
        (
            "a setting of the application",
            "written",
            of(NodeKind::Setting, &[b"application language"], b"de".to_vec()),
            json!({ "setting": hex("de") }),
        ),
        (
            "a note of the application",
            "written",
            of(NodeKind::Note, &[&id, b"how far"], vec![9]),
            json!({ "note": "09" }),
        ),
        // Nobody reads it yet.
        (
            "a replica that was dropped",
            "written",
            of(NodeKind::Removed, &[&id], NOW.0.to_le_bytes().to_vec()),
            json!({}),
        ),
        ("a transport's state", "written", transport(state.clone()), says_state.clone()),
        ("a byte more behind a transport's state", "read", transport([&state[..], &[0]].concat()), says_state),
    ]
}

fn rejected() -> Vec<(&'static str, NodeRecord)> {
    let (id, third) = (*replica().as_bytes(), author(3));
    let direction = |value: Vec<u8>| of(NodeKind::Setting, &[b"direction ", &id], value);
    let policy = |value: Vec<u8>| of(NodeKind::Setting, &[b"download ", &id], value);
    let setting = |name: &[u8], value: Vec<u8>| of(NodeKind::Setting, &[name], value);
    let transport = |value: Vec<u8>| of(NodeKind::Transport, &[b"nowhere"], value);
    let all_ones = || -> Vec<u8> { [&[0xff; 9][..], &[1]].concat() };
    vec![
        ("a node's key of 31 bytes", of(NodeKind::Key, &[b"node"], vec![1; 31])),
        ("an owner's key of 31 bytes", of(NodeKind::Key, &[b"replica ", &id], vec![2; 31])),
        ("an author's key of 31 bytes", of(NodeKind::Key, &[b"author ", third.as_bytes()], vec![3; 31])),
        ("an author's key of 33 bytes", of(NodeKind::Key, &[b"author ", third.as_bytes()], vec![3; 33])),
        ("an incarnation of 7 bytes", setting(b"incarnation", vec![1; 7])),
        ("an interval of 7 bytes", setting(b"sync interval", vec![1; 7])),
        ("an interval of 9 bytes", setting(b"sync interval", vec![1; 9])),
        ("a direction without a value", direction(Vec::new())),
        ("a direction that there is not", direction(vec![3])),
        ("a direction under an id of 31 bytes", of(NodeKind::Setting, &[b"direction ", &id[..31]], vec![1])),
        ("a policy without a value", policy(Vec::new())),
        ("a policy that there is not", policy(vec![2, 0])),
        ("a policy that is cut", policy([&[0, 2][..], &sized("video/"), &[3, b't']].concat())),
        ("more prefixes than bytes", policy([vec![0], all_ones()].concat())),
        ("a prefix that is too long", policy([vec![0, 1], sized([b'a'; 1_025])].concat())),
        ("a policy under an id of 31 bytes", of(NodeKind::Setting, &[b"download ", &id[..31]], vec![1, 0])),
        ("a transport without a state", transport(Vec::new())),
        ("a transport's state that is cut", transport([sized("nowhere/1"), varint(2), vec![7]].concat())),
        ("a kind of state that is no text", transport([sized([0xff]), sized([])].concat())),
        ("a kind of state of more than all bytes", transport(all_ones())),
    ]
}

async fn make(without: &Json) -> Json {
    let accepted = accepted()
        .into_iter()
        .map(|(name, how, record, says)| json!({ "name": name, "how": how, "record": shown(&record), "says": says }));
    let mut damaged = Vec::new();
    for (name, record) in rejected() {
        let shown = shown(&record);
        damaged.push(json!({ "name": name, "record": shown, "error": refused(record, without).await }));
    }
    json!({ "replica": hex(replica().as_bytes()), "accepted": accepted.collect::<Vec<_>>(), "rejected": damaged })
}

fn shown(record: &NodeRecord) -> Json {
    json!({ "kind": record.kind as u8, "name": hex(&record.name), "value": record.value.as_ref().map(hex) })
}

fn record(json: &Json) -> NodeRecord {
    let kind = KINDS.into_iter().find(|kind| json["kind"] == *kind as u8).unwrap();
    of(kind, &[&bytes(&json["name"])], bytes(&json["value"]))
}

#[tokio::test]
async fn the_vectors_of_a_node_hold() {
    let without = told(None).await.unwrap();
    let file = golden("node.json", &make(&without).await);
    let written = written().await;
    for vector in list(&file["accepted"]) {
        let (name, record) = (&vector["name"], record(&vector["record"]));
        match text(&vector["how"]) {
            "drawn" => assert_eq!(record.kind, NodeKind::Key, "{name}"),
            how => assert_eq!(written.contains(&record), how == "written", "{name}"),
        }
        assert_eq!(says(record, &without).await.as_ref(), Ok(&vector["says"]), "{name}");
    }
    for vector in list(&file["rejected"]) {
        let error = refused(record(&vector["record"]), &without).await;
        assert_eq!(error, text(&vector["error"]), "{}", vector["name"]);
    }
}

#[tokio::test]
async fn keys_that_are_drawn_are_kept_as_in_the_vectors() {
    let (node, _) = start(None).await.unwrap();
    let made = node.create_replica().await.unwrap();
    let keys = node.store().node_records(NodeKind::Key).await.unwrap();
    let named = |record: &NodeRecord| {
        let seed: [u8; 32] = record.value.as_deref().unwrap().try_into().unwrap();
        (record.name.to_vec(), SecretKey::from_bytes(seed).public())
    };
    let of_replica = [&b"replica "[..], made.id().as_bytes()].concat();
    let expected = [(b"node".to_vec(), node.node_id().0), (of_replica, made.id().0)];
    assert_eq!(keys.iter().map(named).collect::<Vec<_>>(), expected);
}
