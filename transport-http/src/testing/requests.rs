//! The HTTP service in process: a request, and whether the answer is what this node, this caller and this key make it.

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header},
    response::Response,
};
use futures_util::{StreamExt, stream};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use sync_core::{model::ReplicaId, testing::fuzz::Input};
use tower::ServiceExt;

use super::{
    SERVER, Server,
    node::{ABSENT, NOTES, PUBLIC, SECRET},
};
use crate::limits::{DEFAULT_KEYS, MAX_KEYS};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Nobody,
    Stranger,
    All,
    Notes,
}

impl Who {
    /// What there is for it at a replica: 200, or why not.
    fn may_read(self, replica: [u8; 32]) -> StatusCode {
        match self {
            Self::Stranger => StatusCode::UNAUTHORIZED,
            _ if replica == PUBLIC => StatusCode::OK,
            Self::Nobody => StatusCode::UNAUTHORIZED,
            Self::All if replica != ABSENT => StatusCode::OK,
            Self::Notes if replica == NOTES => StatusCode::OK,
            Self::All | Self::Notes => StatusCode::NOT_FOUND,
        }
    }

    fn token(self, input: &mut Input<'_>) -> Option<HeaderValue> {
        let kind = input.pick(&["Bearer ", "bearer ", "BEARER  "]);
        let text = match self {
            Self::Nobody => return None,
            Self::All => format!("{kind}all"),
            Self::Notes => format!("{kind}notes"),
            Self::Stranger => match input.below(4) {
                0 => format!("{kind}wrong"),
                1 => "Basic all".to_owned(),
                2 => format!("{kind}{}all", "x".repeat(1_100)),
                _ => {
                    let value = HeaderValue::from_bytes(input.bytes(40)).ok();
                    // Chance may not guess a token.
                    return value
                        .filter(|value| !value.as_bytes().windows(3).any(|part| part == b"all" || part == b"not"))
                        .or(Some(HeaderValue::from_static("Bearer")));
                }
            },
        };
        Some(HeaderValue::from_str(&text).expect("it is text"))
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
enum What {
    Health,
    Node,
    Status,
    Replicas,
    Keys {
        query: String,
    },
    Value {
        key: Vec<u8>,
        path: String,
    },
    Sync,
    /// Whatever the input says.
    Other(String),
}

impl What {
    fn read(input: &mut Input<'_>, server: &Server) -> Self {
        match input.below(12) {
            0 => Self::Health,
            1 => Self::Node,
            2 => Self::Status,
            3 => Self::Replicas,
            4 | 5 => Self::Keys { query: query(input) },
            6..=9 => {
                let mut key = match input.below(8) {
                    0 => input.bytes(80).to_vec(),
                    1 => vec![b'k'; 1_020 + input.below(10)],
                    _ => server.node.keys[input.below(server.node.keys.len())].0.clone(),
                };
                if input.one_in(16) {
                    key.insert(0, 0);
                }
                let path = encoded(&key, input);
                Self::Value { key, path }
            }
            10 => Self::Sync,
            _ => Self::Other(String::from_utf8_lossy(input.bytes(200)).into_owned()),
        }
    }

    fn path(&self, replica: [u8; 32]) -> String {
        let replica = ReplicaId::from(replica);
        match self {
            Self::Health => "/v1/health".into(),
            Self::Node => "/v1/node".into(),
            Self::Status => "/v1/status".into(),
            Self::Replicas => "/v1/replicas".into(),
            Self::Keys { query } => format!("/v1/replicas/{replica}/keys?{query}"),
            Self::Value { path, .. } => format!("/v1/replicas/{replica}/values/{path}"),
            Self::Sync => "/v1/sync".into(),
            Self::Other(path) => format!("/{path}"),
        }
    }
}

/// A key in a path, with more of it encoded than need be.
fn encoded(key: &[u8], input: &mut Input<'_>) -> String {
    let all = input.one_in(2);
    key.iter()
        .map(|byte| match byte {
            b'/' | b'a'..=b'z' if !all => char::from(*byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

fn query(input: &mut Input<'_>) -> String {
    let mut query = String::new();
    for _ in 0..input.below(4) {
        query.push_str(input.pick(&["prefix=", "after=", "limit=", "later=", "limit", "&"]));
        match input.below(5) {
            0 => query.push_str(input.pick(&["0", "1", "2", "1000", "1001", "-1", "99999999999999999999"])),
            1 => query.push_str(&percent_encode(input.bytes(20), NON_ALPHANUMERIC).to_string()),
            2 => query.push_str(&String::from_utf8_lossy(input.bytes(20))),
            _ => query.push_str(input.pick(&["a", "a%2Fb", "b", "%FF", "l", "%", "%0", "+", ""])),
        }
        query.push('&');
    }
    query.retain(|letter| letter.is_ascii_graphic() && letter != '#');
    query
}

fn headers(input: &mut Input<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for _ in 0..input.below(5) {
        let (name, values): (HeaderName, &[&str]) = match input.below(9) {
            0..=2 => (
                header::RANGE,
                &[
                    "bytes=0-0",
                    "bytes=0-",
                    "bytes=-1",
                    "bytes=3-2",
                    "bytes=0-1,3-4",
                    "bytes=300000-",
                    "bytes=299999-",
                    "bytes=65536-131072",
                    "bytes=-300001",
                    "bytes=1-18446744073709551615",
                    "bytes=",
                    "lines=0-1",
                ],
            ),
            3 => (header::IF_NONE_MATCH, &["*", "\"x\"", "W/\"x\", *", ""]),
            4 => (header::IF_RANGE, &["\"x\"", "*", ""]),
            5 => (header::CONNECTION, &["upgrade", "close", "keep-alive, Upgrade"]),
            6 => (header::UPGRADE, &["websocket", "WebSocket", "h2c"]),
            7 => (header::SEC_WEBSOCKET_KEY, &["AAAAAAAAAAAAAAAAAAAAAA==", "A", ""]),
            _ => (header::SEC_WEBSOCKET_VERSION, &["13", "12", ""]),
        };
        let value = match input.below(4) {
            0 => HeaderValue::from_bytes(input.bytes(60)).unwrap_or(HeaderValue::from_static("")),
            _ => HeaderValue::from_static(input.pick(values)),
        };
        headers.append(name, value);
    }
    headers
}

/// An answer, with what has been looked at in its body.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    /// All of it when it is short, as every answer but a value is.
    body: Vec<u8>,
}

/// Nothing breaks; who may not read learns nothing, not even that there is something; and what is answered is what it
/// says that it is.
pub fn requests(data: &[u8]) {
    SERVER.with_borrow(|server| {
        let mut input = Input::new(data);
        for _ in 0..4 {
            one(server, &mut input);
            if input.is_empty() {
                return;
            }
        }
    });
}

fn one(server: &Server, input: &mut Input<'_>) {
    let who = input.pick(&[Who::Nobody, Who::Stranger, Who::All, Who::All, Who::Notes]);
    let token = who.token(input);
    let replica = input.pick(&[NOTES, SECRET, PUBLIC, ABSENT]);
    let method = input
        .pick(&[Method::GET, Method::GET, Method::GET, Method::HEAD, Method::POST, Method::OPTIONS].each_ref())
        .clone();
    let what = What::read(input, server);
    let mut headers = headers(input);
    headers.extend(token.map(|token| (header::AUTHORIZATION, token)));
    let body: Vec<Bytes> = (0..input.below(3)).map(|_| Bytes::copy_from_slice(input.bytes(100))).collect();
    let ask = |replica: [u8; 32]| {
        let mut request = Request::builder().method(method.clone()).uri(what.path(replica));
        // A builder that refused says so at the end.
        if let Some(to) = request.headers_mut() {
            *to = headers.clone();
        }
        let pieces = body.clone().into_iter().map(Ok::<_, std::convert::Infallible>);
        request.body(Body::from_stream(stream::iter(pieces))).ok()
    };
    let Some(request) = ask(replica) else { return };
    let answer = server.run(async {
        let answer = server.router.clone().oneshot(request).await.expect("the routes always answer");
        look(server, answer, &what, &method).await
    });
    assert!(!answer.status.is_server_error(), "{method} {} is answered {}", what.path(replica), answer.status);
    if method == Method::HEAD || answer.status == StatusCode::NOT_MODIFIED {
        assert!(answer.body.is_empty(), "{} has a body", answer.status);
    }
    if who.may_read(SECRET) != StatusCode::OK && replica == SECRET {
        let absent = ask(ABSENT).expect("it is the same but for the replica");
        let absent = server.run(async {
            look(server, server.router.clone().oneshot(absent).await.expect("the routes always answer"), &what, &method)
                .await
        });
        assert_eq!(
            (answer.status, &answer.headers, &answer.body),
            (absent.status, &absent.headers, &absent.body),
            "what is forbidden and what is absent differ"
        );
    }
    let has_route = !matches!(&what, What::Value { key, .. } if key.is_empty());
    if method == Method::GET && has_route {
        judge(server, who, replica, &what, &headers, &answer);
    }
}

/// Reads the body, and proves a value's piece by piece without keeping it.
async fn look(server: &Server, answer: Response, what: &What, method: &Method) -> Answer {
    let (parts, body) = answer.into_parts();
    let value = match what {
        What::Value { key, .. } if parts.status.is_success() => {
            server.node.keys.iter().find(|(other, _)| other == key).map(|(_, value)| value)
        }
        _ => None,
    };
    let (mut pieces, mut kept, mut at) = (body.into_data_stream(), Vec::new(), 0);
    let len: Option<u64> =
        parts.headers.get(header::CONTENT_LENGTH).map(|len| len.to_str().expect("digits").parse().expect("digits"));
    let (start, end) = match (value, parts.headers.get(header::CONTENT_RANGE)) {
        (Some(value), Some(range)) => {
            let range = range.to_str().expect("digits");
            let (bytes, all) = range.strip_prefix("bytes ").and_then(|range| range.split_once('/')).expect("a range");
            let (first, last) = bytes.split_once('-').expect("a range");
            assert_eq!(all, value.len().to_string());
            (first.parse().expect("a number"), last.parse::<usize>().expect("a number") + 1)
        }
        (value, _) => (0, value.map_or(0, Bytes::len)),
    };
    while let Some(piece) = pieces.next().await {
        let piece = piece.expect("this node reads to the end");
        match value {
            Some(value) => assert_eq!(piece, value[start + at..start + at + piece.len()], "it is a part of the value"),
            None => kept.extend_from_slice(&piece),
        }
        at += piece.len();
    }
    if *method != Method::HEAD {
        assert!(value.is_none() || at == end - start, "all that was promised is there");
        assert!(len.is_none_or(|len| len == at as u64), "it is as long as it says");
    }
    Answer { status: parts.status, headers: parts.headers, body: kept }
}

/// What a GET that is well-formed must be answered.
fn judge(server: &Server, who: Who, replica: [u8; 32], what: &What, asked: &HeaderMap, answer: &Answer) {
    let json = || serde_json::from_slice::<serde_json::Value>(&answer.body).expect("it is JSON");
    match what {
        What::Health => assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"{\"status\":\"ok\"}"[..])),
        What::Node => assert_eq!(answer.status, StatusCode::OK),
        What::Status | What::Replicas => {
            let may = matches!(who, Who::All | Who::Notes);
            assert_eq!(answer.status, if may { StatusCode::OK } else { StatusCode::UNAUTHORIZED });
            if may && matches!(what, What::Replicas) {
                let seen = json()["replicas"].as_array().expect("a list").len();
                assert_eq!(seen, if who == Who::All { 3 } else { 2 });
            }
        }
        What::Keys { query } => {
            let may = who.may_read(replica);
            let asked = crate::rest::keys_asked(query);
            // Who may read all of them may learn that the question is none before the replica is looked for.
            if may != StatusCode::OK && (who != Who::All || asked.is_ok()) {
                return assert_eq!(answer.status, may);
            }
            let Ok(asked) = asked else {
                return assert_eq!(answer.status, StatusCode::BAD_REQUEST);
            };
            assert_eq!(answer.status, StatusCode::OK);
            assert!((1..=MAX_KEYS).contains(&asked.limit) && (asked.limit == DEFAULT_KEYS || query.contains("limit=")));
            let behind = |key: &&Vec<u8>| asked.after.as_ref().is_none_or(|after| *key > after);
            let keys = server.node.keys.iter().map(|(key, _)| key);
            let expected: Vec<String> = keys
                .filter(|key| key.starts_with(&asked.prefix))
                .filter(behind)
                .take(asked.limit)
                .map(|key| crate::rest::path_of(key))
                .collect();
            let json = json();
            let seen = json["keys"].as_array().expect("a list").iter().map(|key| key["path"].as_str().expect("text"));
            assert!(seen.eq(expected.iter().map(String::as_str)), "{json} is not {expected:?}");
            assert_eq!(
                json["next"].as_str(),
                expected.last().filter(|_| expected.len() == asked.limit).map(|key| &**key)
            );
        }
        What::Value { key, .. } => {
            let may = who.may_read(replica);
            if may != StatusCode::OK {
                return assert_eq!(answer.status, may);
            }
            if !server.node.keys.iter().any(|(other, _)| other == key) {
                return assert_eq!(answer.status, StatusCode::NOT_FOUND);
            }
            let asks_for_a_part = asked.contains_key(header::RANGE);
            match answer.status {
                StatusCode::OK => {}
                StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => assert!(asks_for_a_part),
                StatusCode::NOT_MODIFIED => assert!(asked.contains_key(header::IF_NONE_MATCH)),
                other => panic!("a value is answered {other}"),
            }
        }
        What::Sync | What::Other(_) => {}
    }
}
