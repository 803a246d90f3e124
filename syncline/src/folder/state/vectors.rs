//! `vectors/folder_state.json`: files of a folder's state, whole and damaged, with what each still says.
//!
//! Nothing in such a file is ever an error: it is a cache of knowledge. Of what is damaged the part before counts, and
//! the rest is cut off; what is of another format or another store is thrown away. The bytes are put together here by
//! hand. When a change of the format is meant:
//!
//! ```sh
//! SYNCLINE_WRITE_VECTORS=1 cargo test -p syncline --lib vectors_of_the_state
//! ```

use serde_json::{Value as Json, json};

use super::*;

const LIFETIME: [u8; 16] = [7; 16];

fn hex(bytes: &[u8]) -> Json {
    data_encoding::HEXLOWER.encode(bytes).into()
}

fn bytes(json: &Json) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(json.as_str().unwrap().as_bytes()).unwrap()
}

fn header(magic: &[u8; 16], lifetime: [u8; 16]) -> Vec<u8> {
    [&magic[..], &lifetime].concat()
}

fn good_header() -> Vec<u8> {
    header(b"syncline folder\x01", LIFETIME)
}

/// A number as postcard has it: seven bits a byte, the lowest first.
fn varint(mut number: u128) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn text(text: &[u8]) -> Vec<u8> {
    [varint(text.len() as u128), text.to_vec()].concat()
}

/// A length and a checksum before it.
fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes()[..], &blake3::hash(body).as_bytes()[..4], body].concat()
}

/// The version of `content` by author `by` at a time, made in the knowledge of itself.
fn base(content: &[u8], by: u8, at: u64) -> Vec<u8> {
    let id = [varint(at.into()), vec![by; 32]].concat();
    let fact = [vec![0], varint(content.len() as u128), blake3::hash(content).as_bytes().to_vec()].concat();
    let knowledge = [varint(1), vec![by; 32], varint(at.into())].concat();
    [id, fact, knowledge].concat()
}

fn known(path: &[u8], base: &[u8], stat: Option<[u64; 4]>) -> Vec<u8> {
    let stat = match stat {
        None => vec![0],
        // Times may be before 1970: their signs are in the lowest bit. The last is the kind.
        Some([len, mtime, ctime, inode]) => [
            vec![1],
            varint(len.into()),
            varint(u128::from(mtime) * 2),
            varint(u128::from(ctime) * 2),
            varint(inode.into()),
            vec![0],
        ]
        .concat(),
    };
    framed(&[&[0], &text(path)[..], base, &stat].concat())
}

fn intent(path: &[u8], base: &[u8]) -> Vec<u8> {
    framed(&[&[1], &text(path)[..], base].concat())
}

fn gone(path: &[u8]) -> Vec<u8> {
    framed(&[&[2], &text(path)[..]].concat())
}

fn root(device: u64, inode: u64) -> Vec<u8> {
    framed(&[vec![3], varint(device.into()), varint(inode.into())].concat())
}

fn imports(number: u64) -> Vec<u8> {
    framed(&[vec![4], varint(number.into())].concat())
}

/// What the state says: its files with the time of each version, those that were being written, the directory, imports.
fn says(state: &FolderState) -> Json {
    let name = |key: &FileKey| String::from_utf8(key.as_bytes().to_vec()).unwrap();
    let files: Vec<Json> = state
        .known
        .iter()
        .map(|(key, known)| json!([name(key), known.base.id.timestamp.0, known.stat.map(|stat| stat.mtime_ns as u64)]))
        .collect();
    let writing: Vec<Json> =
        state.intents().map(|key| json!([name(key), state.intent(key).map(|base| base.id.timestamp.0)])).collect();
    json!({
        "is_new": state.is_new(), "files": files, "writing": writing, "imports": state.imports(),
        "root": state.root().map(|root| [root.device, root.inode]),
    })
}

fn open(file: &[u8]) -> (FolderState, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    std::fs::write(&path, file).unwrap();
    let state = FolderState::open(&path, LIFETIME).unwrap();
    let left = std::fs::read(&path).unwrap();
    (state, left)
}

fn make() -> Json {
    let first = known(b"a", &base(b"one", 1, 1_000), Some([3, 5, 6, 70_000]));
    let second = known(b"d/b", &base(b"two", 2, 2_000), None);
    let whole = [good_header(), first.clone(), second.clone()].concat();
    let with = |more: &[u8]| [&whole[..], more].concat();
    let changed = |mut bytes: Vec<u8>, at: usize| {
        bytes[at] ^= 1;
        bytes
    };
    let case = |name: &str, file: Vec<u8>| json!({ "name": name, "file": hex(&file), "says": says(&open(&file).0) });
    let accepted = [
        case("a header and no record", good_header()),
        case("two files, one that was not looked at since", whole.clone()),
        case("a newer version of a file", with(&known(b"a", &base(b"three", 1, 3_000), None))),
        case("a file that is gone", with(&gone(b"a"))),
        case("a version that is being written, of a file and of a new one", {
            with(&[intent(b"a", &base(b"next", 2, 4_000)), intent(b"new", &base(b"new", 2, 5_000))].concat())
        }),
        case("the directory and the imports", with(&[root(1, 2), imports(300)].concat())),
    ];
    let long = framed(&[&[2][..], &text(&vec![b'x'; 64 * 1024])].concat());
    // What comes behind it does not count either.
    let then = |damaged: Vec<u8>| [damaged, gone(b"a")].concat();
    let damaged = |name: &str, keeps: usize, file: Vec<u8>| {
        let mut case = case(name, file);
        case["keeps"] = keeps.into();
        case
    };
    let rejected = [
        damaged("an empty file", 0, Vec::new()),
        damaged("half a header", 0, good_header()[..20].to_vec()),
        damaged("another format", 0, [header(b"syncline folder\x02", LIFETIME), first.clone()].concat()),
        damaged("another store's", 0, [header(b"syncline folder\x01", [8; 16]), first.clone()].concat()),
        damaged("a changed bit of the last record", 1, changed(whole.clone(), whole.len() - 1)),
        damaged("a changed bit of a record before", 0, changed(whole.clone(), 32 + 12)),
        damaged("a changed checksum", 1, then(changed(whole.clone(), 32 + first.len() + 4))),
        damaged("the last record is cut short", 1, whole[..whole.len() - 1].to_vec()),
        damaged("half a length", 2, with(&[1, 0])),
        damaged("a length beyond the end", 2, with(&[&200u32.to_le_bytes()[..], &[0; 4]].concat())),
        damaged("a record that is too long", 2, with(&then(long))),
        damaged("a length of all ones", 2, with(&[0xff; 8])),
        damaged("a record of an unknown kind", 2, with(&then(framed(&[5, 0])))),
        damaged("a record of no bytes", 2, with(&then(framed(&[])))),
        damaged("a version of an unknown kind of file", 2, {
            let mut wrong = base(b"one", 1, 1_000);
            wrong[2 + 32] = 9;
            with(&then(known(b"c", &wrong, None)))
        }),
        damaged("a name that leads out of the folder", 2, with(&known(b"../c", &base(b"one", 1, 1_000), None))),
        damaged("an empty name", 2, with(&known(b"", &base(b"one", 1, 1_000), None))),
    ];
    json!({ "lifetime": hex(&LIFETIME), "accepted": accepted, "rejected": rejected })
}

#[test]
fn the_vectors_of_the_state_hold() {
    let made = make();
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "vectors", "folder_state.json"].iter().collect();
    if std::env::var_os("SYNCLINE_WRITE_VECTORS").is_some() {
        std::fs::write(&path, serde_json::to_string_pretty(&made).unwrap() + "\n").unwrap();
    }
    let kept: Json = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert!(kept == made, "{} is not what the code says now; see the docs of this test", path.display());
    for vector in kept["accepted"].as_array().unwrap() {
        let file = bytes(&vector["file"]);
        let (state, left) = open(&file);
        assert_eq!(says(&state), vector["says"], "{}", vector["name"]);
        assert!(!state.is_new(), "{}", vector["name"]);
        assert_eq!(left, file, "what is whole stays as it is: {}", vector["name"]);
    }
    // Of what is damaged nothing is believed but the files before.
    for vector in kept["rejected"].as_array().unwrap() {
        let (name, file) = (&vector["name"], bytes(&vector["file"]));
        let (state, left) = open(&file);
        assert_eq!(says(&state), vector["says"], "{name}");
        let (again, stays) = open(&left);
        assert_eq!(stays, left, "{name}");
        assert_eq!(again.all(), state.all(), "{name}");
        assert_eq!(Json::from(state.len()), vector["keeps"], "{name}: {:?}", state.known);
        assert_eq!(state.intents().count() + usize::try_from(state.imports()).unwrap(), 0, "{name}");
    }
}

#[test]
fn the_state_is_written_as_in_the_vectors() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let mut state = FolderState::open(&path, LIFETIME).unwrap();
    let key = |name: &str| FileKey::new(name.as_bytes()).unwrap();
    let stat = Stat { len: 3, mtime_ns: 5, ctime_ns: 6, inode: 70_000, kind: Kind::File };
    state.set(&key("a"), base_of(b"one", 1, 1_000), Some(stat));
    state.set_intent(&key("a"), base_of(b"next", 2, 4_000));
    state.remove(&key("a"));
    state.set_root(RootId { device: 1, inode: 2 });
    state.set_imports(300);
    state.sync().unwrap();
    let by_hand = [
        good_header(),
        // A new file says at once that nothing was imported.
        imports(0),
        known(b"a", &base(b"one", 1, 1_000), Some([3, 5, 6, 70_000])),
        intent(b"a", &base(b"next", 2, 4_000)),
        gone(b"a"),
        root(1, 2),
        imports(300),
    ];
    assert_eq!(hex(&std::fs::read(&path).unwrap()), hex(&by_hand.concat()));
}
