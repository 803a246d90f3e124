//! `vectors/settings.json`, `vectors/tokens.json` and `vectors/daemon.json`: what a data directory has beside its store, the
//! record of a token, and the frames on a daemon's socket.

use std::io;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value as Json, json};
use sync_core::store::NodeKind;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{
    data_dir::{Binding, DataDir, FORMAT, GivenTicket, Settings},
    golden::{bytes, golden, hex, list, text, varint},
    node::{TokenRecord, token_hash},
    request::{Answer, PutValue, Request},
    socket,
    text::MostlyText,
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

fn requests() -> Vec<(&'static str, Request)> {
    let replica = || Some("01".repeat(32));
    let key = || MostlyText(b"a/b.txt".to_vec());
    let bytes = |bytes: &[u8]| PutValue::Bytes(MostlyText(bytes.to_vec()));
    vec![
        ("put", Request::Put { replica: None, key: key(), value: bytes(b"text") }),
        (
            "put bytes that are no text",
            Request::Put { replica: replica(), key: MostlyText(vec![0xff, 0]), value: bytes(&[0xfe]) },
        ),
        ("put a file", Request::Put { replica: None, key: key(), value: PutValue::File("/tmp/a".into()) }),
        ("get", Request::Get { replica: None, key: key(), out: "/tmp/a".into() }),
        ("remove", Request::Remove { replica: None, key: key() }),
        ("remove all with a prefix", Request::RemovePrefix { replica: None, prefix: MostlyText(Vec::new()) }),
        ("list", Request::List { replica: None, prefix: key(), after: None, limit: 1_000 }),
        ("list on", Request::List { replica: replica(), prefix: key(), after: Some(key()), limit: 0 }),
        ("watch", Request::Watch { replica: None, prefix: key() }),
        ("a ticket", Request::Ticket { replica: None, write: true, expires_s: None }),
        ("a ticket for a week", Request::Ticket { replica: replica(), write: false, expires_s: Some(604_800) }),
        ("a token", Request::Token { replica: None, expires_s: Some(60) }),
        ("join", Request::Join { ticket: "syncline://abc".into(), folder: None }),
        ("join into a folder", Request::Join { ticket: "syncline://abc".into(), folder: Some("/srv/b".into()) }),
        ("the peers", Request::Peers { replica: None }),
        ("sync", Request::Sync { replica: None, timeout_ms: 30_000 }),
        ("the status", Request::Status { replica: replica() }),
        ("what is in the way", Request::Why { replica: None }),
    ]
}

fn replies() -> Vec<(&'static str, Answer)> {
    vec![
        ("done", Answer::Done(json!({ "len": 5 }))),
        ("done, with nothing to tell", Answer::Done(Json::Null)),
        ("one of many", Answer::Item(json!({ "watching": true }))),
        ("it failed", Answer::Failed("there is no value at `a`".into())),
        ("it was asked wrongly", Answer::Usage("which replica? there are 2".into())),
    ]
}

/// What goes over the socket for a message.
async fn sent(message: &impl Serialize) -> Vec<u8> {
    let (mut near, mut far) = UnixStream::pair().expect("a pair of sockets");
    socket::write(&mut near, message).await.expect("it is short");
    drop(near);
    let mut bytes = Vec::new();
    far.read_to_end(&mut bytes).await.expect("it was written");
    bytes
}

/// What a daemon, or a command, takes these bytes for when nothing follows them.
async fn received<T: DeserializeOwned>(bytes: &[u8]) -> Result<Option<T>, String> {
    let (mut near, mut far) = UnixStream::pair().expect("a pair of sockets");
    near.write_all(bytes).await.expect("they fit");
    drop(near);
    socket::read(&mut far).await.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => "cut".into(),
        _ if error.to_string() == "a frame is too long" => "too long".into(),
        io::ErrorKind::InvalidData => "malformed".into(),
        _ => error.to_string(),
    })
}

fn frame(document: &str) -> Vec<u8> {
    let len = u32::try_from(document.len()).expect("it is short");
    [&len.to_be_bytes()[..], document.as_bytes()].concat()
}

/// Written frames, some that are only read, each with what is written for it, and what is refused.
async fn make_frames<T: Serialize + DeserializeOwned + std::fmt::Debug>(
    messages: Vec<(&'static str, T)>,
    others: &[(&'static str, &str)],
    rejected: &[(&'static str, Vec<u8>)],
) -> Json {
    let mut accepted = Vec::new();
    for (name, message) in messages {
        let text = serde_json::to_string(&message).expect("it can be written");
        let bytes = sent(&message).await;
        assert_eq!(bytes, frame(&text));
        accepted.push(json!({ "name": name, "frame": hex(&bytes), "text": text, "means": text }));
    }
    for (name, text) in others {
        let message = received::<T>(&frame(text)).await.expect(name).expect(name);
        let means = serde_json::to_string(&message).expect("it can be written");
        accepted.push(json!({ "name": name, "frame": hex(frame(text)), "text": text, "means": means }));
    }
    let mut refused = Vec::new();
    for (name, bytes) in rejected {
        let error = received::<T>(bytes).await.expect_err(name);
        refused.push(json!({ "name": name, "frame": hex(bytes), "error": error }));
    }
    json!({ "accepted": accepted, "rejected": refused })
}

/// Every vector is read as it says.
async fn check_frames<T: Serialize + DeserializeOwned + std::fmt::Debug>(file: &Json) {
    for vector in list(&file["accepted"]) {
        let Ok(Some(read)) = received::<T>(&bytes(&vector["frame"])).await else { panic!("{}", vector["name"]) };
        assert_eq!(sent(&read).await, frame(text(&vector["means"])), "{}", vector["name"]);
    }
    for vector in list(&file["rejected"]) {
        let error = received::<T>(&bytes(&vector["frame"])).await.expect_err(text(&vector["name"]));
        assert_eq!(error, text(&vector["error"]), "{}", vector["name"]);
        assert!(["cut", "too long", "malformed"].contains(&&*error), "{error}");
    }
}

#[tokio::test]
async fn the_vectors_of_the_daemon_hold() {
    let frames = |frames: &[(&'static str, &str)]| -> Vec<(&'static str, Vec<u8>)> {
        frames.iter().map(|(name, text)| (*name, frame(text))).collect()
    };
    let broken = [
        ("a length alone", vec![0, 0, 0, 9]),
        ("a document cut by a byte", frame(r#"{"why":{}}"#)[..13].to_vec()),
        ("no document", vec![0; 4]),
        ("a length over the limit", vec![4, 0, 0, 1]),
        ("a length of all ones", vec![0xff; 4]),
    ];
    let mut rejected_requests = broken.to_vec();
    rejected_requests.extend(frames(&[
        ("a question that is not known", r#"{"later":{}}"#),
        ("two questions", r#"{"why":{},"status":{}}"#),
        ("no key", r#"{"remove":{}}"#),
        ("a key that is no text and no hexadecimal", r#"{"remove":{"key":{"hex":"0g"}}}"#),
        ("half a byte", r#"{"remove":{"key":{"hex":"abc"}}}"#),
        ("a negative limit", r#"{"list":{"prefix":"","limit":-1}}"#),
        ("a value of neither kind", r#"{"put":{"key":"a","value":"text"}}"#),
        ("more behind it", r#"{"why":{}}{}"#),
        ("text that is no JSON", "why"),
    ]));
    let mut rejected_answers = broken.to_vec();
    rejected_answers.extend(frames(&[
        ("an answer that is not known", r#"{"later":1}"#),
        ("a failure that is no text", r#"{"failed":1}"#),
    ]));
    let others = [
        ("nothing but the question", r#"{"why":{}}"#),
        ("a field that is not known", r#"{"status":{"replica":null,"later":1}}"#),
        ("hexadecimal that would be text, in capitals", r#"{"remove":{"key":{"hex":"6A"}}}"#),
        ("with white space", " { \"peers\" : { } } "),
    ];
    let made = json!({
        "requests": make_frames(requests(), &others, &rejected_requests).await,
        "answers": make_frames(replies(), &[], &rejected_answers).await,
    });
    let file = golden("daemon.json", &made);
    check_frames::<Request>(&file["requests"]).await;
    check_frames::<Answer>(&file["answers"]).await;
    // Who ends without a word, or in the middle of a length, has asked nothing.
    assert!(matches!(received::<Request>(&[]).await, Ok(None)));
    assert!(matches!(received::<Request>(&[0, 0]).await, Ok(None)));
}
