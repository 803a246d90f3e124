//! Entries and seals, grants, tickets and addresses, ranges.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::Input;
use crate::{
    address::{MAX_ADDRESS_LEN, PeerAddress},
    machine::wire::decode_bundles,
    model::{
        AuthorId, Bundle, EVERYBODY, Grant, GrantId, Hash, HybridClock, Item, Key, MAX_CHAIN, MAX_TICKET_LEN, Op,
        PeerId, Prefix, PublicKey, ReadScope, ReplicaId, Right, Rights, SecretKey, SlotKey, SlotRange, Ticket,
        Timestamp, Value, VerifiedBundle, Verifier, reseal, sign_commit, successor_of_prefix,
    },
    store::Scope,
};

/// So many people take part.
const PEOPLE: usize = 6;

fn person(number: usize) -> SecretKey {
    SecretKey::from_bytes([number as u8 + 1; 32])
}

/// A short name, often one that another begins with.
fn name(input: &mut Input<'_>) -> Vec<u8> {
    let alphabet = [b'a', b'b', 0, 1, 0xff, 0xfe];
    (0..input.below(4)).map(|_| input.pick(&alphabet)).collect()
}

fn op(input: &mut Input<'_>) -> Op {
    let key = |input: &mut Input<'_>| {
        let mut bytes = name(input);
        if bytes.is_empty() {
            bytes.push(b'k');
        }
        Key::new(bytes).expect("short, not empty")
    };
    match input.below(6) {
        0 => Op::Delete { key: key(input) },
        1 => Op::DeletePrefix { prefix: Prefix::new(name(input)).expect("short") },
        2 => {
            let key = key(input);
            Op::Put { key, value: Value::Blob { hash: Hash([input.byte(); 32]), len: input.long() } }
        }
        _ => {
            let key = key(input);
            Op::Put { key, value: Value::Inline(Bytes::copy_from_slice(input.bytes(40))) }
        }
    }
}

/// Entries and their seals: what verifies is what its author signed, whole or in part, whatever was changed on the
/// way; what is sealed again after a change verifies exactly when an honest writer could have written it.
pub fn bundles(data: &[u8]) {
    let mut input = Input::new(data);
    let author = person(input.below(PEOPLE));
    let replica = ReplicaId(person(input.below(PEOPLE)).public());
    let count = 1 + input.below(9);
    let ops: Vec<Op> = (0..count).map(|_| op(&mut input)).collect();
    let wall = Timestamp(input.long() >> input.below(64));
    if let Ok(whole) = sign_commit(replica, &author, &HybridClock::default(), wall, ops.clone()) {
        let signed: BTreeMap<u32, Hash> = whole.entries().map(|entry| (entry.index, entry.order.hash)).collect();
        let mut bundle = part(&whole, &mut input);
        let is_whole = bundle.clone().verify(replica, &mut Verifier::default());
        // A commit at the end of time is the one thing that a writer could still do wrong.
        if whole.seal().timestamp.0.checked_add(u64::from(whole.seal().count)).is_some() {
            assert_eq!(is_whole.expect("what was signed verifies").to_bundle(), bundle);
        }
        let before = bundle.clone();
        for _ in 0..1 + input.below(3) {
            change(&mut bundle, &mut input);
        }
        if let Ok(verified) = bundle.clone().verify(replica, &mut Verifier::default()) {
            for entry in verified.entries() {
                assert_eq!(signed.get(&entry.index), Some(&entry.order.hash), "{bundle:?} was never signed");
            }
            assert_eq!((bundle.seal, verified.to_bundle()), (before.seal, bundle.clone()));
        }
        // The author himself seals what was changed: then only what no honest writer makes is refused.
        if let Some(sealed) = reseal(replica, &author, bundle) {
            let is_good = sealed.items.iter().all(|item| item.op.check().is_ok())
                && sealed.seal.timestamp.0.checked_add(u64::from(sealed.seal.count)).is_some();
            match sealed.clone().verify(replica, &mut Verifier::default()) {
                Ok(verified) => assert!(is_good && verified.to_bundle() == sealed, "{sealed:?}"),
                Err(error) => assert!(!is_good, "{error}: {sealed:?}"),
            }
        }
    }
    // And anything at all.
    for bundle in decode_bundles(input.rest()).unwrap_or_default().into_iter().take(4) {
        let _ = bundle.verify(replica, &mut Verifier::default());
    }
}

fn part(whole: &VerifiedBundle, input: &mut Input<'_>) -> Bundle {
    let bundle = whole.to_bundle();
    let kept = input.short();
    let indices: Vec<u32> = (0..whole.len() as u32).filter(|index| kept >> index & 1 == 0).collect();
    if indices.is_empty() {
        return bundle;
    }
    let items = bundle.items.into_iter().filter(|item| indices.contains(&item.index)).collect();
    Bundle { seal: bundle.seal, proof: whole.tree().prove(&indices), items }
}

fn change(bundle: &mut Bundle, input: &mut Input<'_>) {
    let at = input.below(bundle.items.len().max(1));
    match input.below(14) {
        0 => bundle.seal.author = AuthorId(person(input.below(PEOPLE)).public()),
        1 => bundle.seal.timestamp.0 = bundle.seal.timestamp.0.wrapping_add(input.long() >> input.below(64)),
        2 => bundle.seal.count = bundle.seal.count.wrapping_add_signed(input.byte() as i8 as i32),
        3 => bundle.seal.count = input.long() as u32,
        4 => bundle.seal.signature.0[input.below(64)] ^= 1 << input.below(8),
        5 => bundle.proof.push(Hash([input.byte(); 32])),
        6 => drop(bundle.proof.pop()),
        7 if bundle.proof.len() > 1 => bundle.proof.swap(0, 1),
        8 if at < bundle.items.len() => drop(bundle.items.remove(at)),
        9 if at < bundle.items.len() => bundle.items[at].op = op(input),
        10 if at < bundle.items.len() => bundle.items[at].index = input.long() as u32 >> input.below(32),
        11 if at < bundle.items.len() => {
            let again = bundle.items[at].clone();
            bundle.items.push(again);
        }
        12 => bundle.items.push(Item { index: u32::from(input.byte()), op: op(input) }),
        _ => bundle.items.reverse(),
    }
}

/// Who may do what, against a slow reading of PROTOCOL.md, section 5, in whatever order the entries come.
pub fn grants(data: &[u8]) {
    let mut input = Input::new(data);
    let replica = ReplicaId(person(0).public());
    let mut entries: Vec<(AuthorId, Op)> = Vec::new();
    let mut ids: Vec<GrantId> = Vec::new();
    for _ in 0..input.below(24) {
        let issuer = AuthorId(person(input.below(PEOPLE)).public());
        let subject = match input.below(PEOPLE + 1) {
            PEOPLE => EVERYBODY,
            number => person(number).public(),
        };
        let parent = match input.below(ids.len() + 2) {
            0 => None,
            1 => Some(GrantId(Hash([input.byte(); 32]))),
            number => Some(ids[number - 2]),
        };
        let grant = Grant {
            subject,
            right: input.pick(&[Right::Read, Right::Write, Right::Admin]),
            prefix: Prefix::new(name(&mut input)).expect("short"),
            expires: input.one_in(2).then(|| Timestamp(u64::from(input.byte()))),
            parent,
        };
        ids.push(grant.id(&issuer));
        let mut op = grant.to_op(&issuer);
        if let Op::Put { key, value: Value::Inline(bytes) } = &mut op
            && input.one_in(6)
        {
            // Another key, or a value that is nearly the same.
            match input.below(3) {
                0 => *key = Key::new(vec![0, input.byte(), input.byte()]).expect("short"),
                1 => *bytes = [&bytes[..], &[0]].concat().into(),
                _ => *bytes = Bytes::copy_from_slice(input.bytes(60)),
            }
        }
        entries.push((issuer, op));
    }
    let admitted = |order: &[(AuthorId, Op)]| {
        let mut rights = Rights::new(replica);
        for _ in 0..=order.len() {
            for (issuer, op) in order {
                let _ = rights.admit(issuer, op);
            }
        }
        rights
    };
    let rights = admitted(&entries);
    entries.reverse();
    let again = admitted(&entries);
    let ids = |rights: &Rights| rights.grants().map(|(id, ..)| id).collect::<BTreeSet<_>>();
    assert_eq!(ids(&rights), ids(&again), "the order in which system entries come does not matter");
    let slow = Slow::new(replica, &entries);
    assert_eq!(ids(&rights), slow.valid.keys().copied().collect(), "{entries:?}");
    for number in 0..PEOPLE {
        let key = person(number).public();
        let name = name(&mut input);
        let at = Timestamp(u64::from(input.byte()));
        let ordinary =
            Op::Put { key: Key::new([&b"k"[..], &name].concat()).expect("short"), value: Value::Inline(Bytes::new()) };
        let bytes = ordinary.key_bytes().clone();
        assert_eq!(rights.may_write(&AuthorId(key), &ordinary, at), slow.may(&key, &bytes, at, Right::Write));
        assert_eq!(rights.readable(&PeerId(key), at).covers(&bytes), slow.may(&key, &bytes, at, Right::Read));
        if let Some((id, grant)) = rights.best_grant(&key, Right::Write, at) {
            assert!(slow.valid.contains_key(&id) && grant.subject == key && grant.right >= Right::Write);
            assert!(rights.chain(id).len() <= MAX_CHAIN);
        }
    }
}

/// Section 5.1, read slowly: an entry is valid when all that leads to it is.
struct Slow {
    replica: ReplicaId,
    valid: BTreeMap<GrantId, Grant>,
}

impl Slow {
    fn new(replica: ReplicaId, entries: &[(AuthorId, Op)]) -> Self {
        let mut known: BTreeMap<GrantId, (AuthorId, Grant)> = BTreeMap::new();
        for (issuer, op) in entries {
            let Op::Put { key, value: Value::Inline(bytes) } = op else { continue };
            let Ok(grant) = postcard::from_bytes::<Grant>(bytes) else { continue };
            let id = grant.id(issuer);
            let again = postcard::to_allocvec(&grant).expect("a grant has an encoding");
            if key[..] == [&[0, b'g'][..], &id.0.0].concat() && again == bytes[..] {
                known.insert(id, (*issuer, grant));
            }
        }
        let is_valid = |id: &GrantId| {
            let mut depth = 1;
            let (mut issuer, mut grant) = known[id].clone();
            while let Some(parent) = grant.parent {
                let Some((next_issuer, next)) = known.get(&parent) else { return false };
                let outlives = grant.expires.map_or(u64::MAX, |t| t.0) > next.expires.map_or(u64::MAX, |t| t.0)
                    || (grant.expires.is_none() && next.expires.is_some());
                let is_wider = grant.right > next.right || !grant.prefix.starts_with(&next.prefix) || outlives;
                if next.subject != issuer.0 || is_wider || depth == MAX_CHAIN {
                    return false;
                }
                (issuer, grant) = (*next_issuer, next.clone());
                depth += 1;
            }
            issuer.0 == replica.0
        };
        let valid = known.keys().filter(|id| is_valid(id)).map(|id| (*id, known[id].1.clone())).collect();
        Self { replica, valid }
    }

    fn may(&self, who: &PublicKey, key: &[u8], at: Timestamp, right: Right) -> bool {
        *who == self.replica.0
            || self.valid.values().any(|grant| {
                let is_for = grant.subject == *who || (grant.subject == EVERYBODY && right == Right::Read);
                is_for
                    && grant.right >= right
                    && key.starts_with(&grant.prefix)
                    && grant.expires.is_none_or(|end| at < end)
            })
    }
}

/// Tickets and addresses: what is read is written as it was, and shows no secret when it is shown.
pub fn tickets(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(address) = text.parse::<PeerAddress>() {
        assert!(address.as_str().len() <= MAX_ADDRESS_LEN, "an address stays within the limit");
        let again: PeerAddress = address.as_str().parse().expect("an address can be read as it is written");
        assert_eq!(again, address);
    }
    let body = text.rsplit_once("&sum=").map_or(&*text, |(body, _)| body);
    let sum = data_encoding::HEXLOWER.encode(&blake3::hash(body.as_bytes()).as_bytes()[..4]);
    // As it is, and with a checksum that fits, after whatever change.
    for text in [text.to_string(), format!("{body}&sum={sum}")] {
        let Ok(ticket) = text.parse::<Ticket>() else { continue };
        let written = ticket.to_string();
        // Escapes can make it longer than it was given.
        if written.len() > MAX_TICKET_LEN {
            continue;
        }
        let again: Ticket = written.parse().unwrap_or_else(|error| panic!("{error}: {written}"));
        assert_eq!(again.to_string(), written);
        if let Some(invite) = &ticket.invite {
            let (shown, given) = (format!("{ticket:?} {invite:?}").to_lowercase(), text.to_lowercase());
            let secret = invite.secret.to_bytes();
            let base32 = data_encoding::BASE32_NOPAD.encode(&secret).to_lowercase();
            for (secret, said) in [(data_encoding::HEXLOWER.encode(&secret), 0), (base32, 1)] {
                // Who writes it into an address as well has said it himself.
                let is_elsewhere = given.matches(&secret).count() > said;
                assert!(is_elsewhere || !shown.contains(&secret), "a ticket shows its secret");
            }
        }
    }
}

/// All places of at most three bytes from few, as the things that ranges are asked about.
fn places() -> Vec<SlotKey> {
    let bytes = [0u8, 1, 2, b'a', 0xff];
    let mut all = vec![Vec::new()];
    for len in 0..3 {
        let longer: Vec<Vec<u8>> = all
            .iter()
            .filter(|place| place.len() == len)
            .flat_map(|place| bytes.iter().map(move |byte| [&place[..], &[*byte]].concat()))
            .collect();
        all.extend(longer);
    }
    all.into_iter().map(SlotKey::from_bytes).collect()
}

/// Ranges, scopes and prefixes, place by place.
pub fn ranges(data: &[u8]) {
    let mut input = Input::new(data);
    let place = |input: &mut Input<'_>| {
        let bytes = [0u8, 1, 2, b'a', 0xff];
        SlotKey::from_bytes((0..input.below(4)).map(|_| input.pick(&bytes)).collect::<Vec<_>>())
    };
    let range = SlotRange { start: place(&mut input), end: input.one_in(2).then(|| place(&mut input)) };
    let prefixes: Vec<Prefix> =
        (0..input.below(4)).map(|_| Prefix::new(place(&mut input).as_bytes().clone()).expect("short")).collect();
    let readable = ReadScope { prefixes };
    let scope = Scope::of(&readable);
    let is_apart = |ranges: &[SlotRange]| {
        ranges.iter().all(|range| !range.is_empty())
            && ranges.windows(2).all(|pair| pair[0].end.as_ref().is_some_and(|end| *end <= pair[1].start))
    };
    let clamped = scope.clamp(&range);
    assert!(is_apart(scope.ranges()) && is_apart(&clamped), "the ranges of a scope are ascending and apart");
    let places = places();
    assert!(!range.is_empty() || places.iter().all(|place| !range.contains(place)));
    for place in &places {
        let within = |ranges: &[SlotRange]| ranges.iter().any(|range| range.contains(place));
        assert_eq!(
            within(&clamped),
            within(scope.ranges()) && range.contains(place),
            "{place:?} in {range:?} and {scope:?}"
        );
        // What the scope holds is what may be read, entry by entry.
        let bytes = place.as_bytes();
        let expected = match bytes.first() {
            _ if readable.is_empty() => false,
            _ if readable.is_all() => true,
            None | Some(0) => true,
            // A prefix deletion may be seen when it is about something that may be read.
            Some(1) => {
                readable.prefixes.iter().any(|prefix| prefix.covers(&bytes[1..]) || prefix.starts_with(&bytes[1..]))
            }
            Some(2) => readable.covers(&bytes[1..]),
            Some(_) => within(scope.ranges()),
        };
        assert_eq!(within(scope.ranges()), expected, "{place:?} for {readable:?}");
        let prefix = input.bytes(3);
        let begins = bytes.starts_with(prefix);
        let in_range = &bytes[..] >= prefix && successor_of_prefix(prefix).is_none_or(|end| bytes < &end);
        assert_eq!(begins, in_range, "{place:?} and the prefix {prefix:?}");
    }
}
