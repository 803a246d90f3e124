//! The REST surface over the real node.

#![allow(clippy::unwrap_used)] // A test may panic.

mod common;

use std::{fs, os::unix::fs::PermissionsExt, sync::Arc};

use common::{Machine, eventually, http_get};
use sync_core::{
    manager::SyncManager,
    model::{
        AuthorId, EVERYBODY, Grant, Hash, HybridClock, Key, Op, Prefix, Right, SecretKey, Timestamp, Value, sign_commit,
    },
    store::{Apply, NodeKind, Origin, ReplicaStore},
};
use transport_http::HttpTransport;

const HTTP: [&str; 2] = ["--listen", "http://127.0.0.1:0"];

#[test]
fn a_token_gives_its_replica_for_its_time_and_no_more() {
    let (a, b) = (Machine::new(), Machine::new());
    let up_b = b.up(&HTTP);
    let up_a = a.up(&HTTP);
    a.done(["put", "k", "of a"]);
    let (id_a, id_b) = (up_a.field("replica"), up_b.field("replica"));
    a.done(["join", &up_b.field("ticket")]);
    let base = format!("{}/v1", up_a.address("http"));
    let get = |path: &str, token: &str| http_get(&format!("{base}/{path}"), Some(token), None);
    let one = a.done(["token", "--replica", &id_a[..12]]);
    let one = one.trim();
    assert_eq!(get(&format!("replicas/{id_a}/values/k"), one).body, b"of a");
    for path in [format!("replicas/{id_b}/keys"), format!("replicas/{id_b}/values/k"), format!("replicas/{id_b}")] {
        assert_eq!(get(&path, one).status, 404, "{path}");
    }
    for path in ["replicas", "status"] {
        let text = String::from_utf8(get(path, one).body).unwrap();
        assert!(text.contains(&id_a) && !text.contains(&id_b), "{path}: {text}");
    }
    let all = a.done(["token"]);
    assert!(String::from_utf8(get("replicas", all.trim()).body).unwrap().contains(&id_b));
    let short = a.done(["token", "--expires", "10s"]);
    assert_eq!(get("replicas", short.trim()).status, 200);
    eventually("it expires", || get("replicas", short.trim()).status == 401, String::new);
    // What everybody may read needs none; what is beside it does.
    up_a.stop();
    make_public(&a, &id_a);
    let up_a = a.up(&[]);
    let anybody = |id: &str| http_get(&format!("{}/v1/replicas/{id}/values/k", up_a.address("http")), None, None);
    assert_eq!((anybody(&id_a).status, anybody(&id_b).status), (200, 401));
}

/// Grants everybody to read, as the owner: no verb does that yet.
fn make_public(machine: &Machine, id: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = store_redb::open(machine.data().join("store.redb")).unwrap();
        let keys = store.node_records(NodeKind::Key).await.unwrap();
        let mut keys = keys.iter().filter_map(|record| <[u8; 32]>::try_from(&record.value.as_ref()?[..]).ok());
        let owner = keys.by_ref().map(SecretKey::from_bytes).find(|key| key.public().to_string() == id).unwrap();
        let replica = id.parse().unwrap();
        let state = store.state(replica).await.unwrap();
        let grant =
            Grant { subject: EVERYBODY, right: Right::Read, prefix: Prefix::default(), expires: None, parent: None };
        let op = grant.to_op(&AuthorId(owner.public()));
        let bundle = sign_commit(replica, &owner, &HybridClock::new(state.newest), Timestamp(0), vec![op]).unwrap();
        let now = Timestamp(u64::MAX);
        let batch = Apply { replica, bundles: vec![bundle], origin: Origin::Local, now, records: Vec::new() };
        store.apply(batch).await.unwrap();
        store.close().await;
    });
}

#[test]
fn a_blob_is_read_in_parts_and_keys_are_paged_past_what_the_folder_keeps_for_itself() {
    let a = Machine::new();
    let bytes: Vec<u8> = (0..300_000u32).map(|at| (at.wrapping_mul(at) >> 9) as u8).collect();
    a.save("large", &bytes);
    for name in ["run 1", "run 2", "run 3"] {
        a.save(name, "#!/bin/sh");
        fs::set_permissions(a.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::os::unix::fs::symlink("large", a.path("link")).unwrap();
    let up = a.share(&HTTP);
    eventually("all are put", || a.done(["ls"]).lines().count() == 5, || a.done(["why"]));
    let (token, id) = (a.done(["token"]), up.field("replica"));
    let base = format!("{}/v1/replicas/{id}", up.address("http"));
    let get = |path: &str, range: Option<&str>| http_get(&format!("{base}/{path}"), Some(token.trim()), range);
    assert!(get("values/large", None).body == bytes);
    let part = get("values/large", Some("bytes=16000-250999"));
    assert_eq!(part.status, 206, "{}", part.head);
    assert!(part.head.to_ascii_lowercase().contains("content-range: bytes 16000-250999/300000"), "{}", part.head);
    assert!(part.body == bytes[16_000..251_000]);
    assert_eq!(get("values/large", Some("bytes=300000-")).status, 416);
    // One key a page: those of the folder itself are neither shown nor in the way.
    let (mut keys, mut path) = (Vec::new(), "keys?limit=1".to_string());
    loop {
        let page = get(&path, None).json();
        let Some(key) = page["keys"][0]["key"].as_str() else { break };
        assert!(keys.len() < 10, "{keys:?}");
        keys.push(key.to_string());
        path = format!("keys?limit=1&after={}", page["next"].as_str().unwrap());
    }
    assert_eq!(keys, ["large", "link", "run 1", "run 2", "run 3"]);
}

/// Neither the command that makes a token, nor the node that is shown it, lets it into a log.
#[test]
fn b81_no_token_shows_in_the_most_talkative_log() {
    let mut a = Machine::new();
    a.wrapper = vec!["env".into(), "SYNCLINE_LOG=trace".into()];
    let up = a.up(&HTTP);
    a.done(["put", "k", "v"]);
    let made = a.run(["token"]);
    let token = String::from_utf8(made.stdout).unwrap().trim().to_string();
    let url = format!("{}/v1/replicas/{}/values/k", up.address("http"), up.field("replica"));
    let answer = http_get(&url, Some(&token), None);
    assert_eq!((answer.status, &answer.body[..]), (200, &b"v"[..]));
    // One that is not known is nobody's business either.
    let wrong = token.chars().rev().collect::<String>();
    assert_eq!(http_get(&url, Some(&wrong), None).status, 401);
    let log = [up.errors().into_bytes(), made.stderr].concat();
    up.stop();
    let log = String::from_utf8_lossy(&log).to_lowercase();
    assert!(log.contains("trace") && log.contains("ready") && log.len() > 1_000, "it was talkative: {log}");
    let bytes = data_encoding::BASE32_NOPAD.decode(token.to_uppercase().as_bytes()).unwrap();
    let hex = data_encoding::HEXLOWER.encode(&bytes);
    let list = format!("{bytes:?}");
    // No part of it either.
    for secret in [&token, &wrong, &hex] {
        let shown = secret.as_bytes().windows(12).find(|part| log.contains(str::from_utf8(part).unwrap()));
        assert_eq!(shown, None, "a part of a token shows");
    }
    assert!(!log.contains(list.trim_matches(['[', ']'])), "a token shows");
}

/// The story: whoever may write to one replica could name a content of another one, and who may read the first was
/// handed it over REST. Over the protocol that was mended before (b64 of the library's tests).
#[test]
fn b64_a_planted_reference_gives_nothing_of_another_replica_over_rest() {
    let (a, b) = (Machine::new(), Machine::new());
    let secret: Vec<u8> = (0..300_000u32).map(|at| (at.wrapping_mul(at) >> 7) as u8).collect();
    let file = b.dir.path().join("secret");
    fs::write(&file, &secret).unwrap();
    let up_b = b.up(&HTTP);
    b.done(["put", "secret", "--file", file.to_str().unwrap()]);
    let up_a = a.up(&HTTP);
    a.done(["join", &up_b.field("ticket")]);
    let (id_a, id_b) = (up_a.field("replica"), up_b.field("replica"));
    let came = || a.run(["get", "secret", "--replica", &id_b]).stdout == secret;
    eventually("the content of the second replica is at the node", came, || a.done(["why"]));
    let len = secret.len() as u64;
    plant(&up_a.field("ticket"), "planted", Hash(*blake3::hash(&secret).as_bytes()), len);
    let listed = || a.done(["ls", "--replica", &id_a]).contains("planted");
    eventually("the planted entry is there", listed, || a.done(["status"]));
    let base = format!("{}/v1/replicas", up_a.address("http"));
    let token = |id: &str| a.done(["token", "--replica", id]).trim().to_string();
    let (token_a, token_b) = (token(&id_a), token(&id_b));
    let planted = http_get(&format!("{base}/{id_a}/values/planted"), Some(&token_a), None);
    assert!(planted.status != 200 && planted.body.len() < 1000, "{}", planted.head);
    let part = http_get(&format!("{base}/{id_a}/values/planted"), Some(&token_a), Some("bytes=0-99"));
    assert!(part.status != 206, "{}", part.head);
    let keys = http_get(&format!("{base}/{id_a}/keys"), Some(&token_a), None).json();
    assert_eq!((&keys["keys"][0]["key"], &keys["keys"][0]["complete"]), (&"planted".into(), &false.into()), "{keys}");
    // In its own replica it is there.
    assert_eq!(http_get(&format!("{base}/{id_b}/values/secret"), Some(&token_b), None).body, secret);
    let keys = http_get(&format!("{base}/{id_b}/keys"), Some(&token_b), None).json();
    assert_eq!(keys["keys"][0]["complete"], true, "{keys}");
}

/// Joins with a ticket, and writes an entry that names a content which its author does not have.
fn plant(ticket: &str, key: &str, hash: Hash, len: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let node = SyncManager::builder(Arc::new(store_mem::open().unwrap())).spawn().await.unwrap();
        node.register_transport("http", HttpTransport::builder().client_only()).await.unwrap();
        let ticket: sync_core::model::Ticket = ticket.parse().unwrap();
        let peer = ticket.peer.unwrap();
        let replica = node.join(ticket).await.unwrap();
        node.wait_synced(replica.id(), peer, common::DEADLINE).await.unwrap();
        let author = node.export_author(node.default_author()).await.unwrap();
        let op = Op::Put { key: Key::try_from(key).unwrap(), value: Value::Blob { hash, len } };
        let newest = HybridClock::new(replica.state().await.unwrap().newest);
        let bundles = vec![sign_commit(replica.id(), &author, &newest, Timestamp(0), vec![op]).unwrap()];
        let (replica, now) = (replica.id(), Timestamp(u64::MAX));
        node.store().apply(Apply { replica, bundles, origin: Origin::Local, now, records: Vec::new() }).await.unwrap();
        // Written beneath the manager, it is noticed when the replica is opened.
        node.open_replica(replica).await.unwrap();
        node.flush(common::DEADLINE).await.unwrap();
        node.shutdown(common::DEADLINE).await.unwrap();
    });
}
