//! `addresses.json`: texts that are addresses, of whatever transport, and texts that are none.

use serde_json::{Value as Json, json};
use sync_core::{AddressError, PeerAddress, address::MAX_ADDRESS_LEN};

use super::*;

fn error_name(error: &AddressError) -> &'static str {
    match error {
        AddressError::TooLong(_) => "too long",
        AddressError::Malformed { .. } => "malformed",
    }
}

/// A text, with long runs as `a*1024` behind a space: addresses have none.
fn shown(text: &str) -> Json {
    match text.find("aaaa") {
        Some(at) => json!(format!("{} a*{}", &text[..at], text.len() - at)),
        None => json!(text),
    }
}

fn text(json: &Json) -> String {
    let text = json.as_str().unwrap();
    match text.split_once(" a*") {
        Some((begin, times)) => format!("{begin}{}", "a".repeat(times.parse().unwrap())),
        None => text.into(),
    }
}

fn make() -> Json {
    let long = |len: usize| format!("carrier:{}", "a".repeat(len - 8));
    let accepted = [
        "quic://192.0.2.1:4433".to_owned(),
        "QUIC://Hub.example:1".into(),
        "https://hub.example/notes/".into(),
        "iroh:0101?ip=[2001:db8::1]:1&relay=https://relay.example".into(),
        "carrier-pigeon://loft/7".into(),
        "mem:name".into(),
        long(MAX_ADDRESS_LEN),
    ];
    let rejected = [
        ("nothing", String::new()),
        ("no scheme", "192.0.2.1:4433".into()),
        ("a scheme alone, without its colon", "quic".into()),
        ("a scheme that begins with a digit", "1quic://hub".into()),
        ("a host that is none", "https://[::g]/".into()),
        ("a port that is too large", "https://hub:65536/".into()),
        ("a byte too long", long(MAX_ADDRESS_LEN + 1)),
    ];
    let accepted = accepted.map(|address| {
        let parsed: PeerAddress = address.parse().unwrap();
        json!({ "address": shown(&address), "scheme": parsed.scheme(), "written": shown(parsed.as_str()) })
    });
    let rejected = rejected.map(|(name, address)| {
        let error = address.parse::<PeerAddress>().expect_err(name);
        json!({ "name": name, "address": shown(&address), "error": error_name(&error) })
    });
    json!({ "accepted": accepted, "rejected": rejected })
}

#[test]
fn the_vectors_of_addresses_hold() {
    let file = golden("addresses.json", &make());
    for vector in list(&file["accepted"]) {
        let address: PeerAddress = text(&vector["address"]).parse().unwrap();
        assert_eq!(address.as_str(), text(&vector["written"]));
        assert_eq!(address.scheme(), vector["scheme"].as_str().unwrap());
        // On the wire it is this text.
        assert_eq!(decode::<PeerAddress>(&encode(&text(&vector["address"]))), Some(address));
    }
    for vector in list(&file["rejected"]) {
        let error = text(&vector["address"]).parse::<PeerAddress>().unwrap_err();
        assert_eq!(error_name(&error), vector["error"].as_str().unwrap(), "{}", vector["name"]);
        assert_eq!(decode::<PeerAddress>(&encode(&text(&vector["address"]))), None, "{}", vector["name"]);
    }
}
