//! `vectors/folders.json`: files as keys, links, what versions have seen, and the names of kept versions (PROTOCOL.md,
//! section 19). `vectors/folder_notes.json`: the note of the last import, and the names of files on their way.

use serde_json::{Value as Json, json};
use sync_core::{
    model::{AuthorId, Hash, SecretKey, Timestamp},
    store::NodeKind,
};

use super::{
    apply::Purpose,
    conflict::kept_name,
    key::{Companion, FileKey, KeyProblem, Role, link_stays_inside, role_of},
    managed::LAST_IMPORT,
    plan::{Kind, Seen, VersionId},
    replica::{NotedFile, NotedImport, ViewBuilder, decode_seen, encode_seen},
    state::Stat,
};
use crate::golden::{bytes, golden, hex, list, sized, text, varint};

fn author(seed: u8) -> AuthorId {
    AuthorId(SecretKey::from_bytes([seed; 32]).public())
}

fn hash(content: &[u8]) -> Hash {
    Hash(*blake3::hash(content).as_bytes())
}

fn file(path: &[u8]) -> FileKey {
    FileKey::new(path).unwrap()
}

fn cut(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.pop();
    bytes
}

fn name_of(problem: KeyProblem) -> &'static str {
    match problem {
        KeyProblem::TooLong => "path too long",
        KeyProblem::NameTooLong => "name too long",
        KeyProblem::Outside => "outside",
        KeyProblem::Reserved => "reserved",
    }
}

/// A path of 1,022 bytes.
fn longest() -> Vec<u8> {
    [b"d/".repeat(400), vec![b'x'; 222]].concat()
}

/// The file that a key is about, and as what.
fn role(key: &[u8]) -> Result<(Vec<u8>, &'static str), &'static str> {
    let (file, companion) = match role_of(key) {
        Role::File(file) => return Ok((file.as_bytes().to_vec(), "file")),
        Role::Companion(file, companion) => (file, companion),
        Role::Other(problem) => return Err(name_of(problem)),
    };
    assert_eq!(file.companion(companion), key);
    let role = match companion {
        Companion::Executable => "executable",
        Companion::Link => "link",
        Companion::Seen => "seen",
        Companion::Answered => "answered",
        Companion::SeenByDeletion => "seen by deletion",
    };
    Ok((file.as_bytes().to_vec(), role))
}

fn keys() -> Json {
    let file = |path: &[u8]| json!({ "key": hex(path), "file": hex(path), "role": "file" });
    let companion = |path: &[u8], letter: u8, role: &str| {
        let key = [path, &[0, letter]].concat();
        json!({ "key": hex(key), "file": hex(path), "role": role })
    };
    let accepted = [
        file(b"a"),
        file(b"a/b.txt"),
        file(b".hidden"),
        file(b"..."),
        file(b"a/..b"),
        file(b"a/\xff\xfe"),
        file(b"a/.syncline-tmp"),
        file(&[b'n'; 255]),
        file(&longest()),
        companion(b"a/b.txt", b'x', "executable"),
        companion(b"a/b.txt", b'l', "link"),
        companion(b"a/b.txt", b'v', "seen"),
        companion(b"a/b.txt", b'a', "answered"),
        companion(b"a/b.txt", b'd', "seen by deletion"),
        companion(&longest(), b'v', "seen"),
    ];
    let case = |name: &str, key: &[u8]| {
        let error = role(key).expect_err(name);
        json!({ "name": name, "key": hex(key), "error": error })
    };
    let rejected = [
        case("an absolute path", b"/etc/passwd"),
        case("an empty part", b"a//b"),
        case("a slash at the end", b"a/"),
        case("the folder itself", b"."),
        case("out of the folder", b"../a"),
        case("a part that is the directory", b"a/./b"),
        case("a part that is the directory above", b"a/../b"),
        case("a byte 0", b"a\0b"),
        case("a companion that there is not", b"a\0q"),
        case("a companion of no file", b"../a\0x"),
        case("the directory of files in the making", b".syncline-tmp"),
        case("a file in it", b".syncline-tmp/a"),
        case("a part of 256 bytes", &[b'n'; 256]),
        case("a path of 1,023 bytes", &[longest(), vec![b'x']].concat()),
    ];
    json!({ "accepted": accepted, "rejected": rejected })
}

fn links() -> Json {
    let accepted = ["c", "./c", "../c", "../../c", "../../a/b", "../.."];
    let file = hex("a/b/link");
    let accepted = accepted.map(|target| json!({ "file": file, "target": hex(target) }));
    let case =
        |name: &str, target: &[u8]| json!({ "name": name, "file": file, "target": hex(target), "error": "outside" });
    let rejected = [
        case("no target", b""),
        case("an absolute target", b"/etc/passwd"),
        case("out of the folder", b"../../../c"),
        case("out of the folder and into it", b"../../../folder/c"),
        case("up after down", b"up/../c"),
        case("a byte 0", b"c\0"),
        case("a target of 4,096 bytes", &[b't'; 4_096]),
    ];
    json!({ "accepted": accepted, "rejected": rejected })
}

/// What was seen: by which seed's author, up to when. The lines are in the order of the authors' keys.
fn seen() -> [(&'static str, Vec<(u8, u64)>); 4] {
    [
        ("nothing", Vec::new()),
        ("a version", vec![(1, 1_700_000_000_000_000)]),
        ("versions of two authors", vec![(2, 300), (1, 1)]),
        ("the latest time", vec![(1, u64::MAX)]),
    ]
}

fn seen_by_hand(lines: &[(u8, u64)]) -> Vec<u8> {
    let line = |(seed, at): &(u8, u64)| [&author(*seed).as_bytes()[..], &varint(*at)].concat();
    [varint(lines.len() as u64), lines.iter().flat_map(line).collect()].concat()
}

fn seen_of(json: &Json) -> Seen {
    let line = |line: &Json| (text(&line[0]).parse::<AuthorId>().unwrap(), Timestamp(line[1].as_u64().unwrap()));
    list(json).iter().map(line).collect()
}

fn values_of_seen() -> Json {
    let vector = |name: &str, lines: &[(u8, u64)], is_written: bool| {
        let seen: Vec<Json> = lines.iter().map(|(seed, at)| json!([author(*seed).to_string(), at])).collect();
        json!({ "name": name, "seen": seen, "value": hex(seen_by_hand(lines)), "written": is_written })
    };
    let mut accepted: Vec<Json> = seen().iter().map(|(name, lines)| vector(name, lines, true)).collect();
    accepted.push(vector("authors in another order", &[(1, 1), (2, 300)], false));
    let (one, id) = (seen_by_hand(&[(1, 1_000)]), author(1));
    let rejected = [
        ("no bytes", Vec::new()),
        ("half an author", [&[1][..], &id.as_bytes()[..16]].concat()),
        ("cut by a byte", cut(one.clone())),
        ("more versions than bytes", [&[0xff; 9][..], &[1]].concat()),
        ("a time of more than ten bytes", [&[1][..], id.as_bytes(), &[0xff; 10], &[1]].concat()),
        ("a byte more behind it", [&one[..], &[0]].concat()),
    ];
    let rejected = rejected.map(|(name, value)| json!({ "name": name, "value": hex(value), "error": "nothing seen" }));
    json!({ "accepted": accepted, "rejected": rejected })
}

/// What a version is whose author has put these companions beside its value.
fn kind_of(value: &[u8], companions: &Json) -> &'static str {
    let me = author(1);
    let mut builder = ViewBuilder::default();
    builder.value(VersionId { timestamp: Timestamp(1), author: me }, value.len() as u64, hash(value));
    for (letter, companion) in [("x", Companion::Executable), ("l", Companion::Link)] {
        if let Some(json) = companions.get(letter) {
            let inline = bytes(json);
            builder.companion(companion, me, hash(&inline), &inline);
        }
    }
    match builder.build(me).versions[0].fact.kind {
        Kind::File => "file",
        Kind::Executable => "executable",
        Kind::Link => "link",
    }
}

fn versions() -> Json {
    let vector = |name: &str, companions: Json, kind: &str| {
        let value = hex("../c");
        json!({ "name": name, "value": value, "companions": companions, "kind": kind })
    };
    vec![
        vector("no companion", json!({}), "file"),
        vector("an executable", json!({ "x": "" }), "executable"),
        vector("an executable whose companion has a value", json!({ "x": "00" }), "executable"),
        vector("a link", json!({ "l": hex("../c") }), "link"),
        vector("a link that is executable", json!({ "l": hex("../c"), "x": "" }), "link"),
        vector("the target of an earlier link", json!({ "l": hex("../d") }), "file"),
    ]
    .into()
}

fn kept() -> Json {
    const AT: u64 = 1_795_173_357_000_001;
    let id = author(1).to_string();
    let note = format!("(conflict {} 2026-11-20 11.15.57.000001)", &id[..10]);
    let vector = |file: &str, at: u64, kept: String| {
        let (file, kept) = (hex(file), hex(kept));
        json!({ "file": file, "author": id, "timestamp": at, "kept": kept })
    };
    let accepted = [
        vector("notes/plan.md", AT, format!("notes/plan {note}.md")),
        vector("Makefile", 0, format!("Makefile (conflict {} 1970-01-01 00.00.00.000000)", &id[..10])),
        vector(".profile", AT, format!(".profile {note}")),
        vector("a.tar.gz", AT, format!("a.tar {note}.gz")),
        vector("a.", AT, format!("a {note}.")),
        // A name has 255 bytes at most, and is not cut inside a character.
        vector(&format!("a{}", "ä".repeat(126)), AT, format!("a{} {note}", "ä".repeat(102))),
        // A path has 1,022.
        vector(&format!("{}{}", "d/".repeat(400), "x".repeat(222)), AT, {
            format!("{}{} {note}", "d/".repeat(400), "x".repeat(173))
        }),
    ];
    let deep = format!("{}x", "d/".repeat(500));
    let error = name_of(kept_name(&file(deep.as_bytes()), author(1), Timestamp(AT)).expect_err("there is no room"));
    let rejected = [json!({ "name": "no room", "file": hex(deep), "author": id, "timestamp": AT, "error": error })];
    json!({ "accepted": accepted, "rejected": rejected })
}

#[test]
fn the_vectors_of_folders_hold() {
    let made = json!({
        "keys": keys(), "links": links(), "seen": values_of_seen(), "versions": versions(), "kept": kept(),
    });
    let vectors = golden("folders.json", &made);
    for vector in list(&vectors["keys"]["accepted"]) {
        let (file, role) = role(&bytes(&vector["key"])).unwrap();
        assert_eq!((hex(file), Json::from(role)), (vector["file"].clone(), vector["role"].clone()));
    }
    for vector in list(&vectors["keys"]["rejected"]) {
        assert_eq!(role(&bytes(&vector["key"])), Err(text(&vector["error"])), "{}", vector["name"]);
    }
    for (list_of, is_inside) in [("accepted", true), ("rejected", false)] {
        for vector in list(&vectors["links"][list_of]) {
            let stays = link_stays_inside(&file(&bytes(&vector["file"])), &bytes(&vector["target"]));
            assert_eq!(stays, is_inside, "{vector}");
        }
    }
    for vector in list(&vectors["seen"]["accepted"]) {
        let (seen, value) = (seen_of(&vector["seen"]), bytes(&vector["value"]));
        assert_eq!(decode_seen(&value), seen, "{}", vector["name"]);
        assert_eq!(encode_seen(&seen) == value, vector["written"] == true, "{}", vector["name"]);
    }
    for vector in list(&vectors["seen"]["rejected"]) {
        assert_eq!(decode_seen(&bytes(&vector["value"])), Seen::new(), "{}", vector["name"]);
    }
    for vector in list(&vectors["versions"]) {
        let kind = kind_of(&bytes(&vector["value"]), &vector["companions"]);
        assert_eq!(kind, text(&vector["kind"]), "{}", vector["name"]);
    }
    let name = |vector: &Json| {
        let at = Timestamp(vector["timestamp"].as_u64().unwrap());
        kept_name(&file(&bytes(&vector["file"])), text(&vector["author"]).parse().unwrap(), at)
    };
    for vector in list(&vectors["kept"]["accepted"]) {
        assert_eq!(hex(name(vector).unwrap().as_bytes()), vector["kept"]);
    }
    for vector in list(&vectors["kept"]["rejected"]) {
        assert_eq!(name(vector).map_err(name_of), Err(text(&vector["error"])), "{}", vector["name"]);
    }
}

/// A file that was put, and its bytes in a note.
fn noted(path: &str, [mtime, ctime]: [i64; 2], (kind, tag): (Kind, u8), content: &[u8]) -> (NotedFile, Vec<u8>) {
    let len = content.len() as u64;
    let stat = Stat { len, mtime_ns: mtime.into(), ctime_ns: ctime.into(), inode: 70_000, kind };
    // Times may be before 1970: their signs are in the lowest bit.
    let time = |time: i64| varint(time.unsigned_abs() * 2 - u64::from(time < 0));
    let by_hand = [
        sized(path),
        varint(len),
        time(mtime),
        time(ctime),
        varint(70_000),
        vec![tag],
        varint(len),
        blake3::hash(content).as_bytes().to_vec(),
    ];
    (NotedFile { path: path.into(), stat, value: (len, hash(content)) }, by_hand.concat())
}

fn imports() -> [(&'static str, NotedImport, Vec<u8>); 2] {
    let [first, second, third] = [
        noted("a", [1_700_000_000_000_000_000, 6], (Kind::File, 0), b"one"),
        noted("d/b", [-5, 0], (Kind::Executable, 1), b"two"),
        noted("l", [5, 6], (Kind::Link, 2), b"d/b"),
    ];
    let by_hand = [varint(300), varint(1_700_000_000_000_000), vec![3], first.1, second.1, third.1].concat();
    let after = Timestamp(1_700_000_000_000_000);
    let files = vec![first.0, second.0, third.0];
    [
        ("no file", NotedImport { number: 1, after: Timestamp(0), files: Vec::new() }, vec![1, 0, 0]),
        ("a file, an executable and a link", NotedImport { number: 300, after, files }, by_hand),
    ]
}

fn last_import() -> Json {
    let accepted = imports().map(|(name, _, by_hand)| json!({ "name": name, "value": hex(by_hand) }));
    let [_, (_, _, whole)] = imports();
    let of_another_kind = noted("a", [5, 6], (Kind::File, 3), b"one").1;
    let rejected = [
        ("no bytes", Vec::new()),
        ("cut by a byte", cut(whole.clone())),
        ("more files than bytes", [&[1, 0][..], &[0xff; 9], &[1]].concat()),
        ("a kind of file that there is not", [&[1, 0, 1][..], &of_another_kind].concat()),
        ("a byte more behind it", [&whole[..], &[0]].concat()),
    ];
    let rejected = rejected.map(|(name, value)| json!({ "name": name, "value": hex(value), "error": "left aside" }));
    json!({ "kind": NodeKind::Note as u8, "note": LAST_IMPORT, "accepted": accepted, "rejected": rejected })
}

fn on_their_way() -> Json {
    let hash = blake3::hash(b"a/b.txt").to_hex();
    let digits = &hash[..32];
    let accepted = ["new", "aside"]
        .map(|purpose| json!({ "file": hex("a/b.txt"), "purpose": purpose, "name": format!("{purpose}-{digits}") }));
    let rejected = [
        ("another purpose", format!("old-{digits}")),
        ("no digits", "new-".into()),
        ("31 digits", format!("new-{}", &digits[1..])),
        ("33 digits", format!("new-{digits}0")),
        ("a digit that is none", format!("new-{}x", &digits[1..])),
    ];
    let rejected = rejected.map(|(name, text)| json!({ "name": name, "text": text, "error": "not made here" }));
    json!({ "accepted": accepted, "rejected": rejected })
}

#[test]
fn the_vectors_of_folder_notes_hold() {
    let made = json!({ "last_import": last_import(), "on_their_way": on_their_way() });
    let vectors = golden("folder_notes.json", &made);
    for (vector, (name, import, _)) in list(&vectors["last_import"]["accepted"]).iter().zip(imports()) {
        let value = bytes(&vector["value"]);
        assert_eq!(import.to_bytes(), value, "{name}");
        assert_eq!(NotedImport::from_bytes(&value), Some(import), "{name}");
    }
    for vector in list(&vectors["last_import"]["rejected"]) {
        assert_eq!(NotedImport::from_bytes(&bytes(&vector["value"])), None, "{}", vector["name"]);
    }
    for (vector, purpose) in list(&vectors["on_their_way"]["accepted"]).iter().zip(Purpose::ALL) {
        let name = text(&vector["name"]);
        assert_eq!(purpose.name_of(&file(&bytes(&vector["file"]))), name);
        assert!(purpose.made(name));
    }
    for vector in list(&vectors["on_their_way"]["rejected"]) {
        let text = text(&vector["text"]);
        assert!(Purpose::ALL.iter().all(|purpose| !purpose.made(text)), "{}", vector["name"]);
    }
}
