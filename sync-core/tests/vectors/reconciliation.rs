//! `reconciliation.json`: a small set of entries, claims about it, and how they are answered.
//!
//! Only answers that every implementation gives alike are here: how a range is cut into parts is
//! each one's own matter.

use serde_json::{Value as Json, json};
use sync_core::{
    model::{Digest, Hash, SlotKey, SlotRange, Summary},
    store::{
        Claim, Have, Missing, Scope, ShortId, StoreError,
        coded::{CodedSet, Difference, MAX_SYMBOLS, Symbol, difference},
        reconcile::{View, reconcile},
    },
};

use super::*;

/// Entries by place, in the open.
struct Set(Vec<(SlotKey, Hash)>);

impl Set {
    fn inside<'a>(&'a self, range: &'a SlotRange) -> impl Iterator<Item = &'a Hash> {
        self.0.iter().filter(|(place, _)| range.contains(place)).map(|(_, hash)| hash)
    }
}

impl View for Set {
    fn summary(&self, range: &SlotRange) -> Result<Summary, StoreError> {
        let mut summary = Summary::EMPTY;
        self.inside(range).for_each(|hash| summary.add(&Summary::of(hash)));
        Ok(summary)
    }

    fn split(&self, range: &SlotRange, _: &Summary, _: usize) -> Result<Vec<(SlotRange, Summary)>, StoreError> {
        Ok(vec![(range.clone(), self.summary(range)?)])
    }

    fn ids(&self, range: &SlotRange) -> Result<Vec<ShortId>, StoreError> {
        Ok(self.inside(range).map(ShortId::from).collect())
    }
}

fn entry(n: u8) -> Hash {
    Hash(*blake3::hash(&[n]).as_bytes())
}

fn place(n: u8) -> SlotKey {
    SlotKey::ordinary(&[n])
}

fn set() -> Set {
    Set((10..20).map(|n| (place(n), entry(n))).collect())
}

fn range(low: u8, high: u8) -> SlotRange {
    SlotRange { start: place(low), end: Some(place(high)) }
}

fn digest(numbers: impl IntoIterator<Item = u8>) -> Digest {
    let mut summary = Summary::EMPTY;
    numbers.into_iter().for_each(|n| summary.add(&Summary::of(&entry(n))));
    summary.digest()
}

fn ids(numbers: impl IntoIterator<Item = u8>) -> Vec<ShortId> {
    numbers.into_iter().map(|n| ShortId::from(&entry(n))).collect()
}

/// The ids of the entries that an answer sends, in the order of their places.
fn sent(set: &Set, missing: &[Missing]) -> Vec<Json> {
    let ids = missing.iter().flat_map(|missing| {
        set.inside(&missing.range).map(ShortId::from).filter(|id| !missing.except.contains(id)).collect::<Vec<_>>()
    });
    ids.map(|id| hex(id.0)).collect()
}

fn answer(scope: &Scope, claim: Claim) -> Json {
    let set = set();
    let answer = reconcile(&set, scope, vec![claim]).unwrap();
    json!({ "claims": hex(encode(&answer.claims)), "sends": sent(&set, &answer.missing) })
}

fn make() -> Json {
    let everything = Scope::all();
    // The places of [10, 20), of which the peer may see [10, 15).
    let half = [10, 11, 12, 13, 14].map(|n| hex([n]));
    let narrow = scope(&half);
    let cases = [
        ("the same digest", &everything, range(10, 20), Have::Digest(digest(10..20))),
        ("another digest of a few entries", &everything, range(10, 20), Have::Digest(digest(11..21))),
        ("a digest of nothing", &everything, range(12, 14), Have::Digest(Digest::EMPTY)),
        ("a digest of nothing where nothing is", &everything, range(30, 40), Have::Digest(Digest::EMPTY)),
        ("a digest of something where nothing is", &everything, range(30, 40), Have::Digest(digest([31]))),
        ("the same ids", &everything, range(10, 20), Have::Ids(ids(10..20))),
        ("ids that lack some", &everything, range(10, 20), Have::Ids(ids(12..20))),
        ("ids of which some are not here", &everything, range(10, 20), Have::Ids(ids(10..22))),
        ("ids of which some lack and some are not here", &everything, range(10, 20), Have::Ids(ids(15..25))),
        ("no ids", &everything, range(10, 12), Have::Ids(Vec::new())),
        ("final ids", &everything, range(10, 20), Have::Final(ids(15..25))),
        ("no final ids", &everything, range(10, 12), Have::Final(Vec::new())),
        ("the digest of all, where only a part may be seen", &narrow, range(10, 20), Have::Digest(digest(10..20))),
        ("a digest outside what may be seen", &narrow, range(16, 20), Have::Digest(digest([17]))),
        ("no final ids, where only a part may be seen", &narrow, range(13, 20), Have::Final(Vec::new())),
    ];
    let accepted: Vec<Json> = cases
        .into_iter()
        .map(|(name, scope, range, have)| {
            let claim = Claim { range, have };
            let prefixes = if scope.is_all() { json!([""]) } else { json!(half) };
            let answer = answer(scope, claim.clone());
            json!({ "name": name, "readable_prefixes": prefixes, "claim": hex(encode(&claim)), "answer": answer })
        })
        .collect();
    let entries: Vec<Json> = set()
        .0
        .iter()
        .map(|(place, hash)| json!({ "place": hex(place.as_bytes()), "hash": hash.to_string() }))
        .collect();
    json!({
        "entries": entries, "accepted": accepted, "rejected": rejected(), "coded": coded_sets(),
        "rejected_symbols": rejected_symbols(),
    })
}

/// Why claims are not answered: what cannot be read, and what can and is out of order, are one to who hears them.
fn error_of(claims: &[u8]) -> Option<&'static str> {
    let Some(claims) = decode::<Vec<Claim>>(claims) else { return Some("malformed") };
    match reconcile(&set(), &Scope::all(), claims) {
        Ok(_) => None,
        Err(StoreError::Limit(_)) => Some("malformed"),
        Err(error) => panic!("{error}"),
    }
}

fn rejected() -> Vec<Json> {
    let claim = |range: SlotRange| Claim { range, have: Have::Digest(digest(10..12)) };
    let wide = |n: u16| SlotKey::ordinary(&n.to_be_bytes());
    let many = |count: u16| -> Vec<Claim> {
        (0..count).map(|n| claim(SlotRange { start: wide(n), end: Some(wide(n + 1)) })).collect()
    };
    assert_eq!(error_of(&encode(&many(256))), None);
    let good = encode(&vec![Claim { range: range(10, 20), have: Have::Ids(ids(10..12)) }]);
    assert_eq!(error_of(&good), None);
    // A number of claims, a start and an end of four bytes behind their lengths, then what is had.
    let kind = 1 + 1 + encode(&range(10, 20)).len() - 1;
    assert_eq!(good[kind], 1);
    let set = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let cases = [
        ("cut by a byte", good[..good.len() - 1].to_vec()),
        ("with a byte behind it", [&good[..], &[0]].concat()),
        ("a kind of claim that there is not", set(kind, 3)),
        ("more ids than bytes", set(kind + 1, 200)),
        ("ids of a number of all ones", [&good[..=kind], &[0xff; 9], &[1]].concat()),
        ("more claims than bytes", set(0, 9)),
        ("an empty range", encode(&vec![claim(range(12, 12))])),
        ("a range whose end is before its start", encode(&vec![claim(range(14, 12))])),
        ("ranges that overlap", encode(&vec![claim(range(10, 14)), claim(range(13, 16))])),
        ("ranges that do not ascend", encode(&vec![claim(range(14, 16)), claim(range(10, 12))])),
        ("one range twice", encode(&vec![claim(range(10, 12)), claim(range(10, 12))])),
        ("a range behind one without an end", encode(&vec![claim(SlotRange::ALL), claim(range(10, 12))])),
        ("257 claims", encode(&many(257))),
    ];
    let case = |(name, claims): (&str, Vec<u8>)| {
        let error = error_of(&claims);
        json!({ "name": name, "claims": hex(claims), "error": error })
    };
    cases.into_iter().map(case).collect()
}

/// Symbols that cannot be read.
fn rejected_symbols() -> Vec<Json> {
    let good = encode(&coded(0..3).symbols()[..2]);
    // A number, ids, checks, a count each.
    assert_eq!(good.len(), 1 + 2 * (16 + 4 + 1));
    let mut many = good.clone();
    many[0] = 3;
    let cases = [
        ("cut by a byte", good[..good.len() - 1].to_vec()),
        ("with a byte behind it", [&good[..], &[0]].concat()),
        ("more symbols than bytes", many),
        ("a number of all ones", [&[0xff; 9][..], &[1], &good[1..]].concat()),
        ("a count of more than 32 bits", [&good[..good.len() - 1], &[0xff, 0xff, 0xff, 0xff, 0x1f]].concat()),
    ];
    cases.map(|(name, symbols)| json!({ "name": name, "symbols": hex(symbols), "error": "malformed" })).into()
}

fn scope(prefixes: &[Json]) -> Scope {
    let prefixes = prefixes.iter().map(|prefix| Prefix::new(bytes(prefix)).unwrap()).collect();
    Scope::of(&sync_core::model::ReadScope { prefixes })
}

fn coded(numbers: std::ops::Range<u8>) -> CodedSet {
    let mut set = CodedSet::with_symbols(MAX_SYMBOLS);
    ids(numbers).iter().for_each(|id| set.insert(id));
    set
}

/// The BLAKE3 hash of the postcard encodings of all symbols, one behind the other.
fn hash_of_all(set: &CodedSet) -> String {
    let all: Vec<u8> = set.symbols().iter().flat_map(encode).collect();
    Hash(*blake3::hash(&all).as_bytes()).to_string()
}

/// Sets of ids, the bytes of their first symbols, the hash of all, and what the difference to the first set is.
fn coded_sets() -> Json {
    let first = coded(0..30);
    let sets = [0..30, 0..0, 0..29, 3..33, 20..40].map(|numbers| {
        let set = coded(numbers.clone());
        let symbols = &set.symbols()[..64];
        let Difference::Known { mine, theirs } = difference(&first, symbols) else {
            panic!("64 symbols are enough for it");
        };
        let hex_ids = |ids: Vec<ShortId>| ids.into_iter().map(|id| hex(id.0)).collect::<Vec<_>>();
        json!({
            "ids": hex_ids(ids(numbers)), "symbols": hex(encode(symbols)), "hash_of_all_symbols": hash_of_all(&set),
            "first_alone": hex_ids(mine), "this_alone": hex_ids(theirs),
        })
    });
    json!(sets)
}

#[test]
fn the_vectors_of_coded_symbols_hold() {
    let file = golden("reconciliation.json", &make());
    for vector in list(&file["coded"]) {
        let mut set = CodedSet::with_symbols(MAX_SYMBOLS);
        list(&vector["ids"]).iter().for_each(|id| set.insert(&ShortId(bytes(id).try_into().unwrap())));
        assert_eq!(hex(encode(&set.symbols()[..64])), vector["symbols"]);
        assert_eq!(hash_of_all(&set), vector["hash_of_all_symbols"]);
    }
    for vector in list(&file["rejected_symbols"]) {
        assert_eq!(decode::<Vec<Symbol>>(&bytes(&vector["symbols"])), None, "{}", vector["name"]);
    }
}

#[test]
fn the_vectors_of_reconciliation_hold() {
    let file = golden("reconciliation.json", &make());
    for vector in list(&file["accepted"]) {
        let claim: Claim = decode(&bytes(&vector["claim"])).unwrap();
        let scope = scope(list(&vector["readable_prefixes"]));
        assert_eq!(answer(&scope, claim), vector["answer"], "{}", vector["name"]);
    }
    for vector in list(&file["rejected"]) {
        assert_eq!(error_of(&bytes(&vector["claims"])), vector["error"].as_str(), "{}", vector["name"]);
        assert_eq!(vector["error"], "malformed");
    }
}
