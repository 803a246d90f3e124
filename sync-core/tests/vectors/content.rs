//! `content.json`: the frames on streams of content, without their lengths, and the encoding of groups.

use serde_json::{Value as Json, json};
use sync_core::{
    manager::blobs::{Get, Reply},
    model::Hash,
    store::GroupRanges,
};

use super::*;

fn get_json(get: &Get) -> Json {
    json!({ "hash": get.hash.to_string(), "len": get.len, "start": get.start, "end": get.end })
}

fn reply_json(reply: &Reply) -> Json {
    match reply {
        Reply::Data(bytes) => json!({ "data": hex(bytes) }),
        Reply::Done => json!("done"),
        Reply::None => json!("none"),
        Reply::Part(groups) => json!({ "part": groups.iter().map(|run| [run.start, run.end]).collect::<Vec<_>>() }),
        Reply::Ready(hash) => json!({ "ready": hash.to_string() }),
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
    vec![
        encoding("no bytes", b"", &[(0, 1)], &[b""]),
        encoding("one group", b"hello", &[(0, 1)], &[b"hello"]),
        encoding("three groups", &three, &[(0, 3)], &[&root_pair, &left_pair, first, second, third]),
        encoding("the second of three", &three, &[(1, 2)], &[&root_pair, &left_pair, second]),
        encoding("the last of three", &three, &[(2, 3)], &[&root_pair, third]),
        encoding("the first and the last", &three, &[(0, 1), (2, 3)], &[&root_pair, &left_pair, first, third]),
    ]
}

fn make() -> Json {
    let hash = Hash(*blake3::hash(b"content").as_bytes());
    let get = |start, end| Get { hash, len: 5_000_000, start, end };
    let gets: Vec<Json> = [get(0, 1), get(49, 305)]
        .iter()
        .map(|get| json!({ "frame": hex(get.encode()), "get": get_json(get) }))
        .collect();
    let replies: Vec<Json> = [
        Reply::Data(vec![1, 2, 3].into()),
        Reply::Done,
        Reply::None,
        Reply::Part(groups(&[(0, 1), (300, 400)])),
        Reply::Ready(hash),
    ]
    .iter()
    .map(|reply| json!({ "frame": hex(reply.encode()), "reply": reply_json(reply) }))
    .collect();
    let refused = |name: &str, frame: &[u8]| json!({ "name": name, "frame": hex(frame), "error": "malformed" });
    let get_frame = get(0, 1).encode();
    let many = groups(&(0..257u64).map(|at| (at * 2, at * 2 + 1)).collect::<Vec<_>>());
    json!({
        "accepted": { "gets": gets, "replies": replies }, "encodings": encodings(),
        "rejected": {
            "gets": [
                refused("no groups", &get(5, 5).encode()),
                refused("groups in the wrong order", &get(5, 4).encode()),
                refused("257 groups", &get(0, 257).encode()),
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
            ],
        },
        "skipped": ["c8", "c80102"],
    })
}

#[test]
fn the_vectors_of_content_hold() {
    let file = golden("content.json", &make());
    for vector in list(&file["accepted"]["gets"]) {
        let get = Get::decode(&bytes(&vector["frame"])).unwrap().unwrap();
        assert_eq!(get_json(&get), vector["get"]);
        assert_eq!(hex(get.encode()), vector["frame"]);
    }
    for vector in list(&file["accepted"]["replies"]) {
        let reply = Reply::decode(bytes(&vector["frame"]).into()).unwrap().unwrap();
        assert_eq!(reply_json(&reply), vector["reply"]);
        assert_eq!(hex(reply.encode()), vector["frame"]);
    }
    for vector in list(&file["rejected"]["gets"]) {
        assert!(Get::decode(&bytes(&vector["frame"])).is_err(), "{}", vector["name"]);
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
        let pieces: Result<Vec<_>, _> = reader.encode(groups(&wanted)).unwrap().collect();
        assert_eq!(pieces.unwrap().concat(), bytes(&vector["encoding"]), "{}", vector["name"]);
    }
    for frame in list(&file["skipped"]) {
        assert!(Get::decode(&bytes(frame)).unwrap().is_none());
        assert!(Reply::decode(bytes(frame).into()).unwrap().is_none());
    }
}
