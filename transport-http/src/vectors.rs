//! `vectors/http.json`: addresses of this transport, and the state that is kept between starts.

use serde_json::{Value as Json, json};
use sync_core::{
    PeerAddress,
    transport::{TransportError, TransportState},
};

use crate::{
    address::sync_url,
    golden::{golden, list, text},
    state::{HttpState, STATE_KIND},
};

/// Where the WebSocket of an address is.
fn asked(address: &str) -> Result<String, TransportError> {
    let address: PeerAddress = address.parse().expect("a URL");
    sync_url(&address).map(String::from)
}

fn read(kind: &str, state: &str) -> Result<HttpState, TransportError> {
    HttpState::decode(&TransportState { kind: kind.into(), bytes: state.into() })
}

fn addresses() -> Json {
    let accepted = [
        "http://192.0.2.1:8080",
        "https://hub.example",
        "https://hub.example:8443/notes/",
        "http://[2001:db8::1]/a/b",
        "HTTPS://Hub.Example/N%C3%B6",
    ];
    let rejected = [
        ("another scheme", "quic://192.0.2.1:8080"),
        ("port 0", "http://192.0.2.1:0"),
        ("a query", "https://hub.example/?a=b"),
        ("a fragment", "https://hub.example/#a"),
        ("a user", "https://user@hub.example/"),
        ("a password", "https://:secret@hub.example/"),
    ];
    let accepted = accepted.map(|address| json!({ "address": address, "asks": asked(address).expect(address) }));
    let rejected = rejected.map(|(name, address)| {
        let error = asked(address).expect_err(name);
        json!({ "name": name, "address": address, "error": error.kind.to_string() })
    });
    json!({ "accepted": accepted, "rejected": rejected })
}

fn states() -> Json {
    let accepted = [0, 8_080, 65_535]
        .map(|port| json!({ "kind": STATE_KIND, "port": port, "text": format!("{{\"port\":{port}}}") }));
    let rejected = [
        ("another kind", "http/2", r#"{"port":8080}"#),
        ("another transport's", "quic/1", r#"{"port":8080}"#),
        ("nothing", STATE_KIND, ""),
        ("half of it", STATE_KIND, r#"{"port":80"#),
        ("no port", STATE_KIND, "{}"),
        ("a port that is too large", STATE_KIND, r#"{"port":65536}"#),
        ("a port that is text", STATE_KIND, r#"{"port":"8080"}"#),
        ("more behind it", STATE_KIND, r#"{"port":8080}{"#),
    ];
    let rejected = rejected.map(|(name, kind, state)| {
        let error = read(kind, state).expect_err(name);
        json!({ "name": name, "kind": kind, "text": state, "error": error.kind.to_string() })
    });
    json!({ "accepted": accepted, "rejected": rejected })
}

#[test]
fn the_vectors_of_http_hold() {
    let file = golden("http.json", &json!({ "addresses": addresses(), "states": states() }));
    for vector in list(&file["addresses"]["accepted"]) {
        assert_eq!(asked(text(&vector["address"])).expect("it is one"), text(&vector["asks"]));
    }
    for vector in list(&file["addresses"]["rejected"]) {
        let error = asked(text(&vector["address"])).expect_err(text(&vector["name"]));
        assert_eq!(error.kind.to_string(), text(&vector["error"]));
    }
    for vector in list(&file["states"]["accepted"]) {
        let state = read(text(&vector["kind"]), text(&vector["text"])).expect("it is one");
        assert_eq!(Json::from(state.port), vector["port"]);
        let written = state.encode();
        assert_eq!(written.bytes, text(&vector["text"]).as_bytes());
        assert_eq!(written.kind, text(&vector["kind"]));
    }
    for vector in list(&file["states"]["rejected"]) {
        let error = read(text(&vector["kind"]), text(&vector["text"])).expect_err(text(&vector["name"]));
        assert_eq!(error.kind.to_string(), text(&vector["error"]));
    }
}
