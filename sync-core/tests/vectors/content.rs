//! `content.json`: the frames on streams of content, without their lengths, and the encoding of groups.

use serde_json::{Value as Json, json};
use sync_core::{
    manager::blobs::{Ask, Reply, Run, possession::Question},
    model::{Hash, ReplicaId},
    store::GroupRanges,
};

use super::*;

fn ask_json(ask: &Ask) -> Json {
    let run = ask.run();
    let mut json = json!({
        "replica": run.replica.to_string(), "hash": run.hash.to_string(), "len": run.len, "start": run.start, "end": run.end,
    });
    match ask {
        Ask::Get(_) => json!({ "get": json }),
        Ask::Tree(_) => json!({ "tree": json }),
        Ask::Prove(_, nonce) => {
            json["nonce"] = json!(hex(nonce));
            json!({ "prove": json })
        }
    }
}

fn reply_json(reply: &Reply) -> Json {
    match reply {
        Reply::Data(bytes) => json!({ "data": hex(bytes) }),
        Reply::Done => json!("done"),
        Reply::None => json!("none"),
        Reply::Part(groups) => json!({ "part": groups.iter().map(|run| [run.start, run.end]).collect::<Vec<_>>() }),
        Reply::Ready(replica, hash) => json!({ "ready": { "replica": replica.to_string(), "hash": hash.to_string() } }),
        Reply::Proof(proof) => json!({ "proof": hex(proof) }),
    }
}

fn groups(runs: &[(u64, u64)]) -> GroupRanges {
    runs.to_vec().try_into().unwrap()
}

/// The content of the vectors: so many bytes, each the number of its group.
fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 16_384) as u8 + 1).collect()
}

/// The chaining value of a part of the content that begins with chunk `first`, by hand from the specification of BLAKE3.
fn chaining_value(bytes: &[u8], first_chunk: u64) -> [u8; 32] {
    use blake3::hazmat::HasherExt;
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(first_chunk * 1024);
    hasher.update(bytes);
    hasher.finalize_non_root()
}

/// Encodings of contents of one, two and three groups, by hand from PROTOCOL.md, section 14.
fn encodings() -> Vec<Json> {
    let three = content(2 * 16_384 + 5);
    let (first, second, third) = (&three[..16_384], &three[16_384..32_768], &three[32_768..]);
    let leaf = |bytes, group: u64| chaining_value(bytes, group * 16);
    let left = chaining_value(&three[..32_768], 0);
    let root_pair = [left, leaf(third, 2)].concat();
    let left_pair = [leaf(first, 0), leaf(second, 1)].concat();
    let encoding = |name: &str, whole: &[u8], wanted: &[(u64, u64)], encoding: &[&[u8]]| {
        json!({
            "name": name, "content": hex(whole), "hash": blake3::hash(whole).to_hex().as_str(), "wanted": wanted,
            "encoding": hex(encoding.concat()),
        })
    };
    let tree = |name: &str, wanted: &[(u64, u64)], encoding: &[&[u8]]| {
        json!({
            "name": name, "content": hex(&three), "hash": blake3::hash(&three).to_hex().as_str(), "wanted": wanted,
            "tree": hex(encoding.concat()),
        })
    };
    vec![
        tree("the tree of three groups", &[(0, 3)], &[&root_pair, &left_pair]),
        tree("the tree above the last of three", &[(2, 3)], &[&root_pair]),
        encoding("no bytes", b"", &[(0, 1)], &[b""]),
        encoding("one group", b"hello", &[(0, 1)], &[b"hello"]),
        encoding("three groups", &three, &[(0, 3)], &[&root_pair, &left_pair, first, second, third]),
        encoding("the second of three", &three, &[(1, 2)], &[&root_pair, &left_pair, second]),
        encoding("the last of three", &three, &[(2, 3)], &[&root_pair, third]),
        encoding("the first and the last", &three, &[(0, 1), (2, 3)], &[&root_pair, &left_pair, first, third]),
    ]
}

/// Proofs of possession, by hand from PROTOCOL.md, section 14.
fn proofs() -> Vec<Json> {
    let whole = content(2 * 16_384 + 5);
    let (asker, server) = (key(1), key(2));
    let replica = key(3).public();
    let (hash, nonce) = (blake3::hash(&whole), [7; 32]);
    let proof = |start: u64, end: u64, bytes: &[u8]| {
        let numbers = [whole.len() as u64, start, end].map(u64::to_be_bytes).concat();
        let message =
            [&nonce[..], &asker.public().0, &server.public().0, &replica.0, hash.as_bytes(), &numbers].concat();
        let secret = blake3::derive_key("syncline v1 content possession", &message);
        json!({
            "content": hex(&whole), "hash": hash.to_hex().as_str(), "replica": hex(replica.0),
            "asker": hex(asker.public().0), "server": hex(server.public().0), "nonce": hex(nonce),
            "start": start, "end": end, "key": hex(secret), "proof": hex(blake3::keyed_hash(&secret, bytes).as_bytes()),
        })
    };
    vec![proof(0, 3, &whole), proof(1, 2, &whole[16_384..32_768]), proof(2, 3, &whole[32_768..])]
}

fn make() -> Json {
    let hash = Hash(*blake3::hash(b"content").as_bytes());
    let replica = ReplicaId(key(3).public());
    let run = |start, end| Run { replica, hash, len: 5_000_000, start, end };
    let get = |start, end| Ask::Get(run(start, end));
    let prove = |start, end| Ask::Prove(run(start, end), [7; 32]);
    let asks: Vec<Json> = [get(0, 1), get(49, 305), prove(0, 4096), Ask::Tree(run(0, 4096))]
        .iter()
        .map(|ask| json!({ "frame": hex(ask.encode()), "ask": ask_json(ask) }))
        .collect();
    let replies: Vec<Json> = [
        Reply::Data(vec![1, 2, 3].into()),
        Reply::Done,
        Reply::None,
        Reply::Part(groups(&[(0, 1), (300, 400)])),
        Reply::Ready(replica, hash),
        Reply::Proof([9; 32]),
    ]
    .iter()
    .map(|reply| json!({ "frame": hex(reply.encode()), "reply": reply_json(reply) }))
    .collect();
    let refused = |name: &str, frame: &[u8]| json!({ "name": name, "frame": hex(frame), "error": "malformed" });
    let get_frame = get(0, 1).encode();
    let many = groups(&(0..257u64).map(|at| (at * 2, at * 2 + 1)).collect::<Vec<_>>());
    json!({
        "accepted": { "asks": asks, "replies": replies }, "encodings": encodings(), "proofs": proofs(),
        "rejected": {
            "asks": [
                refused("no groups", &get(5, 5).encode()),
                refused("groups in the wrong order", &get(5, 4).encode()),
                refused("257 groups to be sent", &get(0, 257).encode()),
                refused("4097 groups to be proved", &prove(0, 4097).encode()),
                refused("the tree of 4097 groups", &Ask::Tree(run(0, 4097)).encode()),
                refused("cut by a byte", &get_frame[..get_frame.len() - 1]),
                refused("with a byte behind it", &[&get_frame[..], &[0]].concat()),
            ],
            "replies": [
                refused("no bytes", &[]),
                refused("no data", &[80]),
                refused("done with more", &[81, 0]),
                refused("none with more", &[82, 0]),
                refused("an empty run", &[83, 1, 5, 5]),
                refused("runs that touch", &[83, 2, 0, 1, 1, 2]),
                refused("runs that do not ascend", &[83, 2, 5, 6, 0, 1]),
                refused("257 runs", &Reply::Part(many).encode()),
                refused("a hash that is cut", &[84, 1]),
                refused("a proof that is cut", &[85, 1]),
            ],
        },
        "skipped": ["c8", "c80102"],
    })
}

#[test]
fn the_vectors_of_content_hold() {
    let file = golden("content.json", &make());
    for vector in list(&file["accepted"]["asks"]) {
        let ask = Ask::decode(&bytes(&vector["frame"])).unwrap().unwrap();
        assert_eq!(ask_json(&ask), vector["ask"]);
        assert_eq!(hex(ask.encode()), vector["frame"]);
    }
    for vector in list(&file["accepted"]["replies"]) {
        let reply = Reply::decode(bytes(&vector["frame"]).into()).unwrap().unwrap();
        assert_eq!(reply_json(&reply), vector["reply"]);
        assert_eq!(hex(reply.encode()), vector["frame"]);
    }
    for vector in list(&file["rejected"]["asks"]) {
        assert!(Ask::decode(&bytes(&vector["frame"])).is_err(), "{}", vector["name"]);
    }
    for vector in list(&file["rejected"]["replies"]) {
        assert!(Reply::decode(bytes(&vector["frame"]).into()).is_err(), "{}", vector["name"]);
    }
    let dir = sync_content::ContentDir::in_memory();
    for vector in list(&file["encodings"]) {
        let staged = dir.stage_bytes(&bytes(&vector["content"])).unwrap();
        let published = dir.publish(vec![staged]).unwrap().remove(0);
        assert_eq!(published.hash.as_bytes(), &bytes32(&vector["hash"]));
        let reader = dir.reader(published.hash, published.len, &published.outboard).unwrap();
        let wanted: Vec<_> = list(&vector["wanted"]).iter().map(|run| (number(&run[0]), number(&run[1]))).collect();
        let (encoder, expected) = match vector.get("tree") {
            Some(tree) => (reader.encode_tree(groups(&wanted)), tree),
            None => (reader.encode(groups(&wanted)), &vector["encoding"]),
        };
        let pieces: Result<Vec<_>, _> = encoder.unwrap().collect();
        assert_eq!(pieces.unwrap().concat(), bytes(expected), "{}", vector["name"]);
    }
    for vector in list(&file["proofs"]) {
        let whole = bytes(&vector["content"]);
        let (start, end) = (number(&vector["start"]), number(&vector["end"]));
        let (replica, hash) = (bytes32(&vector["replica"]).into(), Hash(bytes32(&vector["hash"])));
        let run = Run { replica, hash, len: whole.len() as u64, start, end };
        let peer = |name: &str| PeerId(PublicKey(bytes32(&vector[name])));
        let (asker, server, nonce) = (peer("asker"), peer("server"), bytes32(&vector["nonce"]));
        let mut hasher = Question { asker, server, run: &run, nonce: &nonce }.hasher();
        hasher.update(&whole[start as usize * 16_384..whole.len().min(end as usize * 16_384)]);
        assert_eq!(hex(hasher.finalize().as_bytes()), vector["proof"]);
    }
    for frame in list(&file["skipped"]) {
        assert!(Ask::decode(&bytes(frame)).unwrap().is_none());
        assert!(Reply::decode(bytes(frame).into()).unwrap().is_none());
    }
}
