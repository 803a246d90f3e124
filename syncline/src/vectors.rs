//! `vectors/settings.json` and `vectors/tokens.json`: what a data directory has beside its store, and the record of a token.

use serde_json::{Value as Json, json};
use sync_core::store::NodeKind;

use crate::{
    data_dir::{Binding, DataDir, FORMAT, GivenTicket, Settings},
    golden::{bytes, golden, hex, list, text, varint},
    node::{TokenRecord, token_hash},
};

fn settings() -> Vec<(&'static str, Settings, String)> {
    let binding = |read_only, in_memory| Binding {
        folder: "/home/alice/notes".into(),
        replica: "01".repeat(32),
        read_only,
        in_memory,
    };
    let replica = "01".repeat(32);
    let all = Settings {
        format: FORMAT,
        listen: vec!["iroh:".into(), "http://[::]:8080".into()],
        folders: vec![binding(false, false), Binding { folder: "/srv/b".into(), ..binding(true, true) }],
        tickets: vec![GivenTicket { replica: replica.clone(), ticket: "syncline1abc".into() }],
    };
    let all_text = format!(
        r#"{{
  "format": 1,
  "listen": [
    "iroh:",
    "http://[::]:8080"
  ],
  "folders": [
    {{
      "folder": "/home/alice/notes",
      "replica": "{replica}",
      "read_only": false,
      "in_memory": false
    }},
    {{
      "folder": "/srv/b",
      "replica": "{replica}",
      "read_only": true,
      "in_memory": true
    }}
  ],
  "tickets": [
    {{
      "replica": "{replica}",
      "ticket": "syncline1abc"
    }}
  ]
}}"#
    );
    let none = "{\n  \"format\": 1,\n  \"listen\": [],\n  \"folders\": [],\n  \"tickets\": []\n}";
    vec![("everything", all, all_text), ("nothing yet", Settings::default(), none.into())]
}

/// Settings that were not written like this, and are read all the same.
fn short() -> [(&'static str, Settings, String); 2] {
    let binding = Binding { folder: "/a".into(), replica: "01".into(), read_only: false, in_memory: false };
    [
        ("the format alone", Settings::default(), r#"{"format":1}"#.into()),
        (
            "a folder without its flags, and a field that is not known",
            Settings { folders: vec![binding], ..Settings::default() },
            r#"{"format":1,"later":[1],"folders":[{"folder":"/a","replica":"01"}]}"#.into(),
        ),
    ]
}

/// Reads a file of settings as a node does.
fn read(file: &[u8]) -> Result<Settings, String> {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let data = DataDir::choose(Some(directory.path())).expect("the path is absolute");
    std::fs::write(data.file("settings.json"), file).expect("a file can be written");
    data.settings().map_err(|error| {
        let error = error.to_string();
        match () {
            () if error.contains("use a newer version") => "newer format".into(),
            () if error.contains("is damaged") => "damaged".into(),
            () => error,
        }
    })
}

fn make_settings() -> Json {
    let written = settings().into_iter().map(|(name, _, text)| json!({ "name": name, "text": text, "written": true }));
    let others = short().into_iter().map(|(name, _, text)| json!({ "name": name, "text": text, "written": false }));
    let rejected = [
        ("a newer format", r#"{"format":2}"#),
        ("a newer format with other fields", r#"{"format":4294967296,"listen":1}"#),
        ("an empty file", ""),
        ("half of it", r#"{"format":1,"listen":["#),
        ("no format", "{}"),
        ("a format that is text", r#"{"format":"1"}"#),
        ("a negative format", r#"{"format":-1}"#),
        ("a folder without a replica", r#"{"format":1,"folders":[{"folder":"/a"}]}"#),
        ("a ticket without its text", r#"{"format":1,"tickets":[{"replica":"01"}]}"#),
        ("a flag that is none", r#"{"format":1,"folders":[{"folder":"/a","replica":"01","read_only":1}]}"#),
        ("more behind it", r#"{"format":1}}"#),
        ("no object", "[]"),
    ];
    let rejected = rejected.map(|(name, text)| {
        let error = read(text.as_bytes()).expect_err(name);
        json!({ "name": name, "text": text, "error": error })
    });
    json!({ "accepted": written.chain(others).collect::<Vec<_>>(), "rejected": rejected })
}

#[test]
fn the_vectors_of_settings_hold() {
    let file = golden("settings.json", &make_settings());
    let all = settings().into_iter().chain(short());
    for (vector, (name, settings, _)) in list(&file["accepted"]).iter().zip(all) {
        assert_eq!(text(&vector["name"]), name);
        assert_eq!(read(text(&vector["text"]).as_bytes()).as_ref(), Ok(&settings), "{name}");
        if vector["written"] == true {
            let directory = tempfile::tempdir().expect("a directory can be made");
            let data = DataDir::choose(Some(directory.path())).expect("the path is absolute");
            data.save(&settings).expect("settings can be written");
            let written = std::fs::read_to_string(data.file("settings.json")).expect("it was written");
            assert_eq!(written, text(&vector["text"]), "{name}");
        }
    }
    for vector in list(&file["rejected"]) {
        let error = read(text(&vector["text"]).as_bytes()).expect_err(text(&vector["name"]));
        assert_eq!(error, text(&vector["error"]), "{}", vector["name"]);
        assert!(["newer format", "damaged"].contains(&&*error), "{error}");
    }
}

fn make_tokens() -> Json {
    let of = |replica: Option<[u8; 32]>, expires: Option<u64>| {
        let replica = replica.map_or(vec![0], |id| [&[1][..], &id].concat());
        let expires = expires.map_or(vec![0], |at| [vec![1], varint(at)].concat());
        [replica, expires].concat()
    };
    let secret = "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst";
    let hash = *blake3::hash(secret.as_bytes()).as_bytes();
    let accepted =
        [(None, None), (None, Some(1_800_000_000_000_000u64)), (Some([7; 32]), None), (Some([7; 32]), Some(0))].map(
            |(replica, expires)| {
                let name = [replica.as_ref().map_or(&[][..], |id| &id[..]), &hash].concat();
                json!({
                    "token": secret, "replica": replica.map(hex), "expires": expires, "name": hex(name),
                    "value": hex(of(replica, expires)),
                })
            },
        );
    let mut cut = of(Some([7; 32]), Some(1_000));
    cut.pop();
    let rejected = [
        ("nothing", Vec::new()),
        ("cut by a byte", cut),
        ("half a replica", vec![1, 7, 7]),
        ("an option of 2", vec![2, 0]),
        ("a time of more than ten bytes", [&[0, 1][..], &[0xff; 10], &[1]].concat()),
    ];
    let rejected = rejected.map(|(name, value)| {
        assert!(TokenRecord::from_bytes(&value).is_err(), "{name}");
        json!({ "name": name, "value": hex(value), "error": "malformed" })
    });
    json!({ "kind": NodeKind::Token as u8, "accepted": accepted, "rejected": rejected })
}

#[test]
fn the_vectors_of_tokens_hold() {
    let file = golden("tokens.json", &make_tokens());
    for vector in list(&file["accepted"]) {
        let value = bytes(&vector["value"]);
        let record = TokenRecord::from_bytes(&value).expect("it is one");
        assert_eq!(json!(record.replica.map(hex)), vector["replica"]);
        assert_eq!(json!(record.expires), vector["expires"]);
        assert_eq!(record.to_bytes(), value);
        assert_eq!(hex(record.name(&token_hash(text(&vector["token"])))), vector["name"]);
    }
    for vector in list(&file["rejected"]) {
        assert!(TokenRecord::from_bytes(&bytes(&vector["value"])).is_err(), "{}", vector["name"]);
    }
}
