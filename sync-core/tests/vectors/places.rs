//! `places.json`: what peers may see, as ranges of places.

use serde_json::{Value as Json, json};
use sync_core::{
    model::{Prefix, ReadScope, SlotKey, SlotRange},
    store::Scope,
};

use super::*;

fn range_json(range: &SlotRange) -> Json {
    json!({ "start": hex(range.start.as_bytes()), "end": range.end.as_ref().map(|end| hex(end.as_bytes())) })
}

fn range(json: &Json) -> SlotRange {
    let end = (!json["end"].is_null()).then(|| SlotKey::from_bytes(bytes(&json["end"])));
    SlotRange { start: SlotKey::from_bytes(bytes(&json["start"])), end }
}

fn scope(prefixes: &[Json]) -> Scope {
    let prefixes = prefixes.iter().map(|prefix| Prefix::new(bytes(prefix)).unwrap()).collect();
    Scope::of(&ReadScope { prefixes })
}

fn make() -> Json {
    let place = |bytes: &[u8]| SlotKey::from_bytes(bytes.to_vec());
    let asked = [
        SlotRange::ALL,
        SlotRange { start: place(&[2, b'a']), end: Some(place(&[2, b'c'])) },
        SlotRange { start: place(&[1]), end: Some(place(&[2])) },
    ];
    let sets: [&[&[u8]]; 6] = [&[], &[b""], &[b"b"], &[b"ab", b"b"], &[b"a", b"b"], &[&[255, 255]]];
    let scopes: Vec<Json> = sets
        .into_iter()
        .map(|prefixes| {
            let prefixes: Vec<Json> = prefixes.iter().map(hex).collect();
            let scope = scope(&prefixes);
            let ranges: Vec<Json> = scope.ranges().iter().map(range_json).collect();
            let clamped: Vec<Json> = asked
                .iter()
                .map(|range| {
                    let inside: Vec<Json> = scope.clamp(range).iter().map(range_json).collect();
                    json!({ "range": range_json(range), "inside": inside })
                })
                .collect();
            json!({ "readable_prefixes": prefixes, "ranges": ranges, "clamped": clamped })
        })
        .collect();
    let ranges: Vec<Json> =
        asked.iter().map(|range| json!({ "range": range_json(range), "postcard": hex(encode(range)) })).collect();
    let good = encode(&asked[1]);
    assert_eq!(good, [2, 2, b'a', 1, 2, 2, b'c']);
    let rejected = [
        ("nothing", Vec::new()),
        ("cut by a byte", good[..6].to_vec()),
        ("with a byte behind it", [&good[..], &[0]].concat()),
        ("a start beyond the end", vec![9, 2, b'a', 0]),
        ("a start of a length of all ones", [&[0xff; 9][..], &[1]].concat()),
        ("no word of an end", vec![2, 2, b'a']),
        ("an end whose option is 2", vec![2, 2, b'a', 2, 2, 2, b'c']),
        ("half an end", vec![2, 2, b'a', 1, 2, 2]),
    ];
    let rejected =
        rejected.map(|(name, postcard)| json!({ "name": name, "postcard": hex(postcard), "error": "malformed" }));
    // Malformed where it is claimed: it holds no place.
    let empty = [("an end at the start", [2u8, b'a']), ("an end before the start", [1, b'z'])].map(|(name, end)| {
        let range = SlotRange { start: place(&[2, b'a']), end: Some(place(&end)) };
        json!({ "name": name, "range": range_json(&range), "postcard": hex(encode(&range)) })
    });
    json!({ "scopes": scopes, "ranges": ranges, "rejected": rejected, "empty": empty })
}

#[test]
fn the_vectors_of_places_hold() {
    let file = golden("places.json", &make());
    for vector in list(&file["scopes"]) {
        let scope = scope(list(&vector["readable_prefixes"]));
        let ranges: Vec<SlotRange> = list(&vector["ranges"]).iter().map(range).collect();
        assert_eq!(scope.ranges(), ranges);
        assert!(ranges.iter().all(|range| !range.is_empty()));
        for clamped in list(&vector["clamped"]) {
            let inside: Vec<SlotRange> = list(&clamped["inside"]).iter().map(range).collect();
            assert_eq!(scope.clamp(&range(&clamped["range"])), inside);
        }
    }
    for vector in list(&file["ranges"]) {
        assert_eq!(decode::<SlotRange>(&bytes(&vector["postcard"])), Some(range(&vector["range"])));
    }
    for vector in list(&file["rejected"]) {
        assert_eq!(decode::<SlotRange>(&bytes(&vector["postcard"])), None, "{}", vector["name"]);
    }
    for vector in list(&file["empty"]) {
        let range = decode::<SlotRange>(&bytes(&vector["postcard"])).unwrap();
        assert!(range.is_empty() && Scope::all().clamp(&range).is_empty(), "{}", vector["name"]);
    }
}
