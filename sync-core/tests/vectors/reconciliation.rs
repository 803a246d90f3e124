//! `reconciliation.json`: a small set of entries, claims about it, and how they are answered.
//!
//! Only answers that every implementation gives alike are here: how a range is cut into parts is
//! each one's own matter.

use serde_json::{Value as Json, json};
use sync_core::{
    model::{Digest, Hash, SlotKey, SlotRange, Summary},
    store::{
        Claim, Have, Missing, Scope, ShortId, StoreError,
        coded::{CodedSet, Difference, MAX_SYMBOLS, difference},
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
    json!({ "entries": entries, "accepted": accepted, "coded": coded_sets() })
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
}

#[test]
fn the_vectors_of_reconciliation_hold() {
    let file = golden("reconciliation.json", &make());
    for vector in list(&file["accepted"]) {
        let claim: Claim = decode(&bytes(&vector["claim"])).unwrap();
        let scope = scope(list(&vector["readable_prefixes"]));
        assert_eq!(answer(&scope, claim), vector["answer"], "{}", vector["name"]);
    }
}
