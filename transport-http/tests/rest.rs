//! The REST surface, through a real socket.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "../../vectors/golden.rs"]
mod golden;

use std::{ops::Range, sync::Arc};

use common::{build, client, listen};
use golden::{golden, hex, list, text};
use reqwest::{Method, Response, StatusCode, header};
use serde_json::{Value, json};
use sync_core::{
    model::ReplicaId,
    transport::{Connection, SyncTransport},
};
use tokio::sync::mpsc;
use transport_http::{
    HttpTransport, limits,
    testing::node::{ABSENT, NOTES, Node, PUBLIC, SECRET},
};

/// A listening node and someone who asks it.
struct Asker {
    _transport: HttpTransport,
    _accepted: mpsc::Receiver<Box<dyn Connection>>,
    base: String,
    client: reqwest::Client,
}

impl Asker {
    async fn start() -> Self {
        let transport = build(HttpTransport::builder().rest(Arc::new(Node::new())));
        let (addresses, accepted) = listen(&transport).await;
        let base = addresses[0].as_str().trim_end_matches('/').to_owned();
        Self { _transport: transport, _accepted: accepted, base, client: client() }
    }

    async fn ask(&self, path: &str, token: Option<&str>, headers: &[(header::HeaderName, &str)]) -> Response {
        let mut request = self.client.get(format!("{}{path}", self.base));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        request.send().await.unwrap()
    }

    async fn json(&self, path: &str, token: Option<&str>) -> (StatusCode, Value) {
        let response = self.ask(path, token, &[]).await;
        let status = response.status();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap())
    }
}

fn below(replica: [u8; 32], rest: &str) -> String {
    format!("/v1/replicas/{}/{rest}", ReplicaId::from(replica))
}

#[tokio::test]
async fn health_and_node_id_are_for_anyone() {
    let node = Asker::start().await;
    assert_eq!(node.json("/v1/health", None).await, (StatusCode::OK, json!({ "status": "ok" })));
    let id = common::context(1, None).node_key.public().to_string();
    assert_eq!(node.json("/v1/node", None).await, (StatusCode::OK, json!({ "node_id": id })));
}

#[tokio::test]
async fn b61_without_a_valid_token_nothing_is_disclosed() {
    let node = Asker::start().await;
    let mut answers = Vec::new();
    let mut paths = vec!["/v1/replicas".to_owned(), "/v1/status".into(), "/v1/replicas/nonsense/keys".into()];
    for replica in [NOTES, SECRET, ABSENT] {
        for rest in ["keys", "keys?limit=0", "values/a", "values/none", "values/%00grant"] {
            paths.push(below(replica, rest));
        }
    }
    for path in &paths {
        for token in [None, Some(""), Some("wrong"), Some("ALL")] {
            let response = node.ask(path, token, &[]).await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path} {token:?}");
            assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
            answers.push(response.text().await.unwrap());
        }
    }
    // Word for word the same.
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    let long = "x".repeat(limits::MAX_TOKEN_LEN + 1);
    for credentials in ["all", "Basic all", "Bearer", long.as_str()] {
        let response = node.ask("/v1/status", None, &[(header::AUTHORIZATION, credentials)]).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{credentials}");
    }
}

#[tokio::test]
async fn b62_absent_and_forbidden_look_alike_to_a_valid_token() {
    let node = Asker::start().await;
    let mut answers = Vec::new();
    for replica in [SECRET, ABSENT] {
        for rest in ["keys", "values/a", "values/none", "values/large"] {
            let response = node.ask(&below(replica, rest), Some("notes"), &[(header::RANGE, "bytes=0-1")]).await;
            assert_eq!(response.status(), StatusCode::NOT_FOUND);
            answers.push(response.text().await.unwrap());
        }
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    let (_, seen) = node.json("/v1/replicas", Some("notes")).await;
    let ids: Vec<&str> = seen["replicas"].as_array().unwrap().iter().map(|r| r["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [ReplicaId::from(NOTES).to_string(), ReplicaId::from(PUBLIC).to_string()]);
    assert_eq!(node.json("/v1/status", Some("notes")).await.1, json!({ "all": false }));
    assert_eq!(node.json("/v1/replicas", Some("all")).await.1["replicas"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_public_replica_is_read_without_a_token() {
    let node = Asker::start().await;
    assert_eq!(node.json(&below(PUBLIC, "keys"), None).await.0, StatusCode::OK);
    let value = node.ask(&below(PUBLIC, "values/a"), None, &[]).await;
    assert_eq!((value.status(), value.text().await.unwrap()), (StatusCode::OK, "first".into()));
    assert_eq!(node.ask(&below(PUBLIC, "values/a"), Some("wrong"), &[]).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn keys_are_listed_in_pages_whatever_bytes_they_have() {
    let node = Asker::start().await;
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let page = node.json(&below(NOTES, &format!("keys?limit=2{after}")), Some("notes")).await.1;
        let keys = page["keys"].as_array().unwrap();
        assert!(keys.len() <= 2);
        seen.extend(keys.iter().map(|key| (key["key"].clone(), key["path"].as_str().unwrap().to_owned())));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    let texts: Vec<_> = seen.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(texts, [Some("a"), Some("a/b c%?#"), Some("b"), Some("large"), None]);
    // Each path leads to its value.
    for ((_, path), (_, value)) in seen.iter().zip(&Node::new().keys) {
        let response = node.ask(&below(NOTES, &format!("values/{path}")), Some("notes"), &[]).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert!(response.bytes().await.unwrap() == *value, "{path}");
    }
    let narrowed = node.json(&below(NOTES, "keys?prefix=a%2F"), Some("notes")).await.1;
    assert_eq!(narrowed["keys"].as_array().unwrap().len(), 1);
    let (status, error) = node.json(&below(NOTES, "keys?limit=1001"), Some("notes")).await;
    assert_eq!((status, error["error"].as_str().unwrap().contains("1000")), (StatusCode::BAD_REQUEST, true));
}

#[tokio::test]
async fn values_come_whole_in_ranges_and_not_at_all_when_they_are_known() {
    let node = Asker::start().await;
    let path = below(NOTES, "values/large");
    let all = &Node::new().keys[3].1;
    let whole = node.ask(&path, Some("all"), &[]).await;
    let tag = whole.headers()[header::ETAG].to_str().unwrap().to_owned();
    assert_eq!(whole.headers()[header::CONTENT_LENGTH], "300000");
    assert_eq!(whole.headers()[header::CONTENT_TYPE], "application/octet-stream");
    assert_eq!(whole.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert!(whole.bytes().await.unwrap() == *all);

    let ranges: [(&str, Range<usize>); 4] = [
        ("bytes=0-0", 0..1),
        ("bytes=65535-131072", 65_535..131_073),
        ("bytes=-5", 299_995..300_000),
        ("bytes=299999-", 299_999..300_000),
    ];
    for (range, bytes) in ranges {
        let part = node.ask(&path, Some("all"), &[(header::RANGE, range), (header::IF_RANGE, &tag)]).await;
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        let content_range = format!("bytes {}-{}/300000", bytes.start, bytes.end - 1);
        assert_eq!(part.headers()[header::CONTENT_RANGE], content_range.as_str());
        assert!(part.bytes().await.unwrap() == all[bytes], "{range}");
    }
    let beyond = node.ask(&path, Some("all"), &[(header::RANGE, "bytes=300000-")]).await;
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(beyond.headers()[header::CONTENT_RANGE], "bytes */300000");
    let stale = [(header::RANGE, "bytes=0-0"), (header::IF_RANGE, "\"another\"")];
    assert_eq!(node.ask(&path, Some("all"), &stale).await.status(), StatusCode::OK);

    for tags in [tag.clone(), format!("\"x\", W/{tag}"), "*".into()] {
        let known = node.ask(&path, Some("all"), &[(header::IF_NONE_MATCH, &tags)]).await;
        assert_eq!((known.status(), known.bytes().await.unwrap().len()), (StatusCode::NOT_MODIFIED, 0), "{tags}");
    }
    let changed = node.ask(&path, Some("all"), &[(header::IF_NONE_MATCH, "\"x\"")]).await;
    assert_eq!(changed.status(), StatusCode::OK);
}

#[tokio::test]
async fn system_keys_and_impossible_keys_are_not_there() {
    let node = Asker::start().await;
    for key in ["%00grant", "", &"k".repeat(1025), "none"] {
        let response = node.ask(&below(NOTES, &format!("values/{key}")), Some("all"), &[]).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{key}");
    }
    let empty = node.ask(&below(NOTES, "values/b"), Some("all"), &[]).await;
    assert_eq!((empty.status(), empty.bytes().await.unwrap().len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn nothing_can_be_written() {
    let node = Asker::start().await;
    for method in [Method::PUT, Method::POST, Method::DELETE, Method::PATCH] {
        for path in ["/v1/replicas".to_owned(), below(NOTES, "values/a"), "/v1/status".into()] {
            let request = node.client.request(method.clone(), format!("{}{path}", node.base)).bearer_auth("all");
            let status = request.body("new").send().await.unwrap().status();
            assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn head_tells_the_length_without_the_bytes() {
    let node = Asker::start().await;
    let request = node.client.head(format!("{}{}", node.base, below(NOTES, "values/large"))).bearer_auth("all");
    let response = request.send().await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()[header::CONTENT_LENGTH]),
        (StatusCode::OK, &"300000".parse().unwrap())
    );
    assert_eq!(response.bytes().await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_node_without_rest_still_says_that_it_is_up() {
    let transport = build(HttpTransport::builder());
    let (addresses, _accepted) = listen(&transport).await;
    let ask = |path: &str| client().get(format!("{}{path}", addresses[0].as_str().trim_end_matches('/'))).send();
    assert_eq!(ask("/v1/health").await.unwrap().status(), StatusCode::OK);
    assert_eq!(ask("/v1/replicas").await.unwrap().status(), StatusCode::UNAUTHORIZED);
    transport.close().await;
}

/// A question of `vectors/rest.json`: its name, path, token and other headers.
type Question = (&'static str, String, Option<&'static str>, Vec<(header::HeaderName, String)>);

/// What is told of an answer beside its status and body.
const TOLD: [header::HeaderName; 9] = [
    header::ACCEPT_RANGES,
    header::CACHE_CONTROL,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::ETAG,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
    header::X_CONTENT_TYPE_OPTIONS,
];

async fn answers(node: &Asker, questions: Vec<Question>) -> Vec<Value> {
    let mut answered = Vec::new();
    for (name, path, token, asked) in questions {
        let headers: Vec<_> = asked.iter().map(|(name, value)| (name.clone(), value.as_str())).collect();
        let answer = node.ask(&path, token, &headers).await;
        let status = answer.status().as_u16();
        let told = TOLD.iter().filter_map(|name| {
            let value = answer.headers().get(name)?.to_str().expect("headers are text");
            Some((name.as_str().to_owned(), Value::from(value)))
        });
        let told: serde_json::Map<_, _> = told.collect();
        let is_json = told.get("content-type").is_some_and(|kind| kind == "application/json");
        let body = answer.bytes().await.unwrap();
        let body = if is_json { serde_json::from_slice(&body).unwrap() } else { hex(&body) };
        let asked: serde_json::Map<_, _> =
            asked.into_iter().map(|(name, value)| (name.as_str().to_owned(), value.into())).collect();
        answered.push(json!({
            "name": name, "path": path, "token": token, "headers": asked,
            "answer": { "status": status, "headers": told, "body": body },
        }));
    }
    answered
}

/// `vectors/rest.json`: what is asked of a node with three replicas of five keys, and its answers word for word.
#[tokio::test]
async fn the_vectors_of_rest_hold() {
    let node = Asker::start().await;
    let (notes, all) = (Some("notes"), Some("all"));
    let first = node.ask(&below(NOTES, "values/a"), all, &[]).await;
    let tag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
    let plain = |name, path: &str, token| (name, path.to_owned(), token, Vec::new());
    let keys = |name, rest: &str| (name, below(NOTES, &format!("keys{rest}")), notes, Vec::new());
    let value = |name, key: &str| (name, below(NOTES, &format!("values/{key}")), notes, Vec::new());
    let with = |name, headers: &[(header::HeaderName, &str)]| {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
        (name, below(NOTES, "values/a"), notes, headers)
    };
    let accepted = answers(
        &node,
        vec![
            plain("it is up", "/v1/health", None),
            plain("who it is", "/v1/node", None),
            plain("the status", "/v1/status", all),
            plain("the status for a token of one replica", "/v1/status", notes),
            plain("all replicas", "/v1/replicas", all),
            plain("those of a token, and public ones", "/v1/replicas", notes),
            keys("the keys", ""),
            keys("a page of them", "?limit=2"),
            keys("the next page", "?limit=2&after=a/b%20c%25%3F%23"),
            keys("the last page", "?after=large"),
            keys("those that begin with something", "?prefix=a%2F"),
            keys("a space as a form writes it", "?prefix=a/b+c"),
            keys("a parameter that is not known", "?later=1&limit=1"),
            ("public keys without a token", below(PUBLIC, "keys?limit=1"), None, Vec::new()),
            value("a value", "a"),
            value("an empty value", "b"),
            value("a key of odd characters", "a/b%20c%25%3F%23"),
            value("a key that is no text", "%FF%FE"),
            with("a part", &[(header::RANGE, "bytes=1-2")]),
            with("the end", &[(header::RANGE, "bytes=-2")]),
            with("from a byte on", &[(header::RANGE, "bytes=3-")]),
            with("a part that ends behind the value", &[(header::RANGE, "bytes=3-99")]),
            with("several parts are the whole", &[(header::RANGE, "bytes=0-0,2-2")]),
            with("a range that is none is the whole", &[(header::RANGE, "bytes=4-1")]),
            with("a part of the version that is known", &[(header::RANGE, "bytes=1-2"), (header::IF_RANGE, &tag)]),
            with(
                "a part of another version is the whole",
                &[(header::RANGE, "bytes=1-2"), (header::IF_RANGE, "\"x\"")],
            ),
            with("it is known", &[(header::IF_NONE_MATCH, &tag)]),
            with("it is known, weakly and among others", &[(header::IF_NONE_MATCH, &format!("\"x\", W/{tag}"))]),
            with("another is known", &[(header::IF_NONE_MATCH, "\"x\"")]),
        ],
    )
    .await;
    let long = "x".repeat(limits::MAX_TOKEN_LEN + 1);
    let scheme = |name, credentials: &str| {
        (name, "/v1/status".to_owned(), None, vec![(header::AUTHORIZATION, credentials.to_owned())])
    };
    let rejected = answers(
        &node,
        vec![
            plain("no token", "/v1/status", None),
            plain("which replicas there are, without a token", "/v1/replicas", None),
            plain("a token that is not known", "/v1/status", Some("wrong")),
            plain("a token that is not known, of what is public", &below(PUBLIC, "keys"), Some("wrong")),
            scheme("another scheme", "Basic all"),
            scheme("a scheme alone", "Bearer"),
            scheme("a token that is too long", &format!("Bearer {long}")),
            plain("a replica that is not the token's", &below(SECRET, "keys"), notes),
            plain("a replica that is not there", &below(ABSENT, "keys"), notes),
            plain("a replica that is not there, of a token for all", &below(ABSENT, "keys"), all),
            plain("a replica that is not there, without a token", &below(ABSENT, "keys"), None),
            plain("no replica's id", "/v1/replicas/nonsense/keys", all),
            value("a key that is not there", "none"),
            value("a key of the system", "%00grant"),
            value("a key that is too long", &"k".repeat(1025)),
            value("no key", ""),
            keys("no keys at all", "?limit=0"),
            keys("too many keys", "?limit=1001"),
            keys("a limit that is no number", "?limit=a"),
            with("a part behind the value", &[(header::RANGE, "bytes=5-")]),
            with("the last no bytes", &[(header::RANGE, "bytes=-0")]),
        ],
    )
    .await;
    let file = golden("rest.json", &json!({ "accepted": accepted, "rejected": rejected }));
    let statuses = |kind: &str| -> Vec<u64> {
        let status = |vector: &Value| vector["answer"]["status"].as_u64().unwrap();
        list(&file[kind]).iter().map(status).collect()
    };
    assert!(statuses("accepted").iter().all(|status| [200, 206, 304].contains(status)));
    assert!(statuses("rejected").iter().all(|status| [400, 401, 404, 416].contains(status)));
    // Who may not know whether something is there cannot tell by the answer.
    let said = |name: &str| {
        let found = list(&file["rejected"]).iter().find(|vector| text(&vector["name"]) == name);
        found.unwrap()["answer"].clone()
    };
    assert_eq!(said("a replica that is not the token's"), said("a replica that is not there"));
    assert_eq!(said("a replica that is not there, without a token"), said("no token"));
}
