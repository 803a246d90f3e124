//! `vectors/iroh.json`: addresses of this transport, and the state that is kept between starts.

use serde_json::{Value as Json, json};
use sync_core::{
    PeerAddress,
    model::SecretKey,
    transport::{TransportError, TransportState},
};

use crate::{
    address::{format, parse},
    golden::{bytes, golden, hex, list, text, varint},
    state::{IrohState, STATE_KIND},
};

/// What an address says, and how it is written.
fn parsed(address: &str) -> Result<Json, TransportError> {
    let address: PeerAddress = address.parse().expect("a URL");
    let found = parse(&address)?;
    let ips: Vec<String> = found.ip_addrs().map(ToString::to_string).collect();
    let relays: Vec<String> = found.relay_urls().map(ToString::to_string).collect();
    Ok(
        json!({ "endpoint": hex(found.id.as_bytes()), "ips": ips, "relays": relays, "written": format(&found).as_str() }),
    )
}

fn read(kind: &str, bytes: Vec<u8>) -> Result<IrohState, TransportError> {
    IrohState::decode(&TransportState { kind: kind.into(), bytes })
}

fn addresses() -> Json {
    let id = SecretKey::from_bytes([1; 32]).public();
    let with = |rest: &str| format!("iroh:{id}{rest}");
    let accepted = [
        with(""),
        with("?ip=192.0.2.1:4433"),
        with("?ip=192.0.2.1:4433&ip=[2001:db8::1]:1&relay=https://relay.example/"),
        with("?later=anything&ip=192.0.2.1:4433"),
        with("?relay=http://192.0.2.1:3340/%23a"),
    ];
    let rejected = [
        ("another scheme", format!("quic://{id}:1")),
        ("no id", "iroh:".into()),
        ("half an id", format!("iroh:{}", &id.to_string()[..32])),
        ("an id that is no point of the curve", format!("iroh:02{}", "00".repeat(31))),
        ("an address without a port", with("?ip=192.0.2.1")),
        ("port 0", with("?ip=192.0.2.1:0")),
        ("a name for an address", with("?ip=hub.example:1")),
        ("a relay that is no URL", with("?relay=relay")),
        ("a relay of another scheme", with("?relay=quic://relay.example")),
    ];
    let accepted = accepted.map(|address| json!({ "address": address, "says": parsed(&address).expect("it is one") }));
    let rejected = rejected.map(|(name, address)| {
        let error = parsed(&address).expect_err(name);
        json!({ "name": name, "address": address, "error": error.kind.to_string() })
    });
    json!({ "accepted": accepted, "rejected": rejected })
}

fn states() -> Json {
    let accepted =
        [0, 4_433, 65_535].map(|port| json!({ "kind": STATE_KIND, "port": port, "bytes": hex(varint(port)) }));
    let rejected = [
        ("another kind", "iroh/2", varint(1)),
        ("another transport's", "http/1", varint(1)),
        ("no bytes", STATE_KIND, Vec::new()),
        ("half a port", STATE_KIND, vec![0x80]),
        ("a port that is too large", STATE_KIND, varint(65_536)),
    ];
    let rejected = rejected.map(|(name, kind, bytes)| {
        let error = read(kind, bytes.clone()).expect_err(name);
        json!({ "name": name, "kind": kind, "bytes": hex(bytes), "error": error.kind.to_string() })
    });
    json!({ "accepted": accepted, "rejected": rejected })
}

#[test]
fn the_vectors_of_iroh_hold() {
    let file = golden("iroh.json", &json!({ "addresses": addresses(), "states": states() }));
    for vector in list(&file["addresses"]["accepted"]) {
        let says = parsed(text(&vector["address"])).expect("it is one");
        assert_eq!(says, vector["says"]);
        assert_eq!(parsed(text(&says["written"])).expect("what is written can be read"), says);
    }
    for vector in list(&file["addresses"]["rejected"]) {
        let error = parsed(text(&vector["address"])).expect_err(text(&vector["name"]));
        assert_eq!(error.kind.to_string(), text(&vector["error"]));
    }
    for vector in list(&file["states"]["accepted"]) {
        let state = read(text(&vector["kind"]), bytes(&vector["bytes"])).expect("it is one");
        assert_eq!(Json::from(state.port), vector["port"]);
        let written = state.encode();
        assert_eq!((hex(written.bytes), Json::from(written.kind)), (vector["bytes"].clone(), vector["kind"].clone()));
    }
    for vector in list(&file["states"]["rejected"]) {
        let error = read(text(&vector["kind"]), bytes(&vector["bytes"])).expect_err(text(&vector["name"]));
        assert_eq!(error.kind.to_string(), text(&vector["error"]));
    }
}
