//! `vectors/quic.json`: addresses of this transport, and the state that is kept between starts.

use serde_json::{Value as Json, json};
use sync_core::{
    PeerAddress,
    transport::{TransportError, TransportState},
};

use crate::{
    address::Target,
    golden::{bytes, golden, hex, list, sized, text, varint},
    state::{QuicState, STATE_KIND},
};

/// An Ed25519 key in PKCS#8.
fn key() -> Vec<u8> {
    [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20][..], &[7; 32]].concat()
}

fn parse(address: &str) -> Result<Json, TransportError> {
    let address: PeerAddress = address.parse().expect("a URL");
    Target::parse(&address).map(|target| match target {
        Target::Socket(socket) => json!({ "socket": socket.to_string() }),
        Target::Name { host, port } => json!({ "host": host, "port": port }),
    })
}

fn read(kind: &str, bytes: Vec<u8>) -> Result<QuicState, TransportError> {
    let state = QuicState::decode(&TransportState { kind: kind.into(), bytes })?;
    state.key_pair()?;
    Ok(state)
}

fn addresses() -> Json {
    let accepted = ["quic://192.0.2.1:4433", "quic://[2001:db8::1]:1", "QUIC://hub.example:65535/"];
    let rejected = [
        ("another scheme", "http://192.0.2.1:4433"),
        ("no port", "quic://192.0.2.1"),
        ("port 0", "quic://192.0.2.1:0"),
        ("no host", "quic:192.0.2.1:4433"),
        ("a path", "quic://192.0.2.1:4433/replica"),
        ("a query", "quic://192.0.2.1:4433?relay=1"),
        ("a fragment", "quic://192.0.2.1:4433#here"),
        ("a user", "quic://user@192.0.2.1:4433"),
    ];
    let accepted = accepted.map(|address| json!({ "address": address, "dials": parse(address).expect(address) }));
    let rejected = rejected.map(|(name, address)| {
        let error = parse(address).expect_err(name);
        json!({ "name": name, "address": address, "error": error.kind.to_string() })
    });
    json!({ "accepted": accepted, "rejected": rejected })
}

fn states() -> Json {
    let of = |port: u64| [varint(port), sized(key())].concat();
    let accepted = [0, 4_433, 65_535]
        .map(|port| json!({ "kind": STATE_KIND, "port": port, "certificate_key": hex(key()), "bytes": hex(of(port)) }));
    let rejected = [
        ("another kind", "quic/2", of(1)),
        ("another transport's", "iroh/1", of(1)),
        ("no bytes", STATE_KIND, Vec::new()),
        ("cut by a byte", STATE_KIND, {
            let mut cut = of(1);
            cut.pop();
            cut
        }),
        ("a port that is too large", STATE_KIND, of(65_536)),
        ("a length of all ones", STATE_KIND, [&varint(1)[..], &[0xff; 9], &[1]].concat()),
        ("no key", STATE_KIND, [varint(1), sized([])].concat()),
        ("a key that is none", STATE_KIND, [varint(1), sized([7; 48])].concat()),
    ];
    let rejected = rejected.map(|(name, kind, bytes)| {
        let error = read(kind, bytes.clone()).expect_err(name);
        json!({ "name": name, "kind": kind, "bytes": hex(bytes), "error": error.kind.to_string() })
    });
    json!({ "accepted": accepted, "rejected": rejected })
}

#[test]
fn the_vectors_of_quic_hold() {
    let file = golden("quic.json", &json!({ "addresses": addresses(), "states": states() }));
    for vector in list(&file["addresses"]["accepted"]) {
        assert_eq!(parse(text(&vector["address"])).expect("it is one"), vector["dials"]);
    }
    for vector in list(&file["addresses"]["rejected"]) {
        let error = parse(text(&vector["address"])).expect_err(text(&vector["name"]));
        assert_eq!(error.kind.to_string(), text(&vector["error"]));
    }
    for vector in list(&file["states"]["accepted"]) {
        let state = read(text(&vector["kind"]), bytes(&vector["bytes"])).expect("it is one");
        assert_eq!(Json::from(state.port), vector["port"]);
        assert_eq!(state.certificate_key, bytes(&vector["certificate_key"]));
        let written = state.encode();
        assert_eq!((hex(written.bytes), Json::from(written.kind)), (vector["bytes"].clone(), vector["kind"].clone()));
    }
    for vector in list(&file["states"]["rejected"]) {
        let error = read(text(&vector["kind"]), bytes(&vector["bytes"])).expect_err(text(&vector["name"]));
        assert_eq!(error.kind.to_string(), text(&vector["error"]));
    }
}
