//! A store against the reference model, and a reconciliation with a side that says what it likes.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::Input;
use crate::{
    machine::limits::{MAX_CLAIMS, MAX_ROUNDS},
    model::{Digest, Op, Prefix, ReadScope, SlotKey, SlotRange, VerifiedBundle, stand_in},
    store::{
        Apply, Claim, Core, Direction, Have, Missing, NodeKind, NodeRecord, Origin, Position, Query, Scope, Select,
        ShortId, Write,
        coded::{CodedSet, Difference, FIRST_SYMBOLS, MAX_SYMBOLS, SOME_SYMBOLS, difference},
    },
    testing::{
        reference::Reference,
        sim::Disk,
        store_suite::world::{NOW, World, delete, delete_prefix, key, peer, put},
    },
};

const NAMES: [&str; 10] = ["a", "a1", "a10", "ab", "a\0", "a\0\0", "b", "b/1", "b%", "c"];

type Store = Core<Disk>;

fn store(number: u8, world: &World) -> Store {
    let core = Core::open(Disk::default(), [number; 32]).expect("memory can be opened");
    let create = Write::CreateReplica { replica: world.replica, records: Vec::new() };
    core.write(&[create]).remove(0).expect("memory can be written");
    core
}

fn apply(world: &World, bundles: Vec<VerifiedBundle>) -> Write {
    Write::Apply(Apply {
        replica: world.replica,
        bundles,
        origin: Origin::Peer(peer(1)),
        now: NOW,
        records: Vec::new(),
    })
}

fn op(input: &mut Input<'_>) -> Op {
    let name = input.pick(&NAMES);
    match input.below(8) {
        0 | 1 => delete(name),
        2 => delete_prefix(&name[..input.below(name.len() + 1).min(name.len())]),
        _ => put(name, &"v".repeat(input.below(40))),
    }
}

fn commit(world: &World, input: &mut Input<'_>) -> VerifiedBundle {
    let (author, at) = (input.below(5), i64::from(input.byte()) - 250);
    let ops = (0..1 + input.below(6)).map(|_| op(input)).collect();
    // Some are from the future, and some of these too far from it.
    let at = if input.one_in(12) { 600_000_000 + at * 100 } else { at };
    world.commit(author, at, ops)
}

/// Whatever is written in whatever order, a store holds what the model holds, and answers what it answers.
pub fn operations(data: &[u8]) {
    let _signatures = stand_in::Guard::switch_on();
    let mut input = Input::new(data);
    let world = World::default();
    let core = store(1, &world);
    let mut model = Reference::new(world.replica);
    let mut written: Vec<VerifiedBundle> = world.grants();
    for _ in 0..40 {
        if input.is_empty() {
            break;
        }
        let bundle = match input.below(4) {
            // Once more, or a grant that was written long ago.
            0 => written[input.below(written.len())].clone(),
            _ => commit(&world, &mut input),
        };
        model.apply(&bundle, NOW);
        written.push(bundle.clone());
        let mut group = vec![apply(&world, vec![bundle])];
        if input.one_in(4) {
            let value = (!input.one_in(3)).then(|| Bytes::copy_from_slice(input.bytes(9)));
            let records = vec![NodeRecord { kind: NodeKind::Setting, name: "s".into(), value }];
            group.push(Write::Save { records });
        }
        for result in core.write(&group) {
            result.expect("memory can be written");
        }
    }
    let state = core.state(world.replica).expect("the replica is there");
    assert_eq!(state.root, model.digest(&SlotRange::ALL), "the root is the digest of the live entries");
    let log = core.log(world.replica, Position(0), usize::MAX).expect("the log can be read");
    let live: BTreeSet<_> = model.live().iter().map(|entry| entry.order.hash).collect();
    assert_eq!(log.iter().map(|entry| entry.hash).collect::<BTreeSet<_>>(), live);
    assert_eq!(log.len(), live.len());
    for name in NAMES {
        let found = core.get(world.replica, &key(name)).expect("get works").map(|entry| entry.hash);
        assert_eq!(found, model.get(&key(name)).map(|entry| entry.order.hash), "get({name:?})");
    }
    let name = |input: &mut Input<'_>| Bytes::from_static(input.pick(&NAMES).as_bytes());
    let query = Query {
        prefix: if input.one_in(2) { name(&mut input) } else { Bytes::new() },
        key: input.one_in(5).then(|| name(&mut input)),
        author: input.one_in(3).then(|| world.author(input.below(5))),
        select: input.pick(&[Select::Newest, Select::All]),
        direction: input.pick(&[Direction::Ascending, Direction::Descending]),
        limit: input.below(5),
        start_after: input.one_in(3).then(|| name(&mut input)),
        tombstones: input.one_in(2),
    };
    let found: Vec<_> =
        core.query(world.replica, &query).expect("query works").iter().map(|entry| entry.hash).collect();
    assert_eq!(found, model.query(&query).iter().map(|entry| entry.order.hash).collect::<Vec<_>>(), "{query:?}");
    let range = range(&mut input);
    let total = core.summary(world.replica, &range).expect("summary works");
    assert_eq!(total.digest(), model.digest(&range), "summary of {range:?}");
    for (part, sum) in core.split(world.replica, &range, 1 + input.below(20)).expect("split works") {
        assert_eq!(sum.digest(), model.digest(&part), "{part:?} of {range:?}");
    }
}

fn place(input: &mut Input<'_>) -> SlotKey {
    match input.below(5) {
        0 => SlotKey::FIRST,
        1 => SlotKey::from_bytes(input.bytes(4).to_vec()),
        2 => SlotKey::from_bytes([&[1][..], input.pick(&NAMES).as_bytes()].concat()),
        _ => SlotKey::ordinary(input.pick(&NAMES).as_bytes()),
    }
}

fn range(input: &mut Input<'_>) -> SlotRange {
    let (a, b) = (place(input), place(input));
    let end = input.one_in(2).then(|| a.clone().max(b.clone()));
    SlotRange { start: a.min(b), end }
}

/// A reconciliation whose other side answers what it likes: whatever it says, what it is told and sent lies within
/// what it may read, and costs no more than its claims; and an honest side still becomes equal afterwards.
pub fn reconciliation(data: &[u8]) {
    let _signatures = stand_in::Guard::switch_on();
    let mut input = Input::new(data);
    let world = World::default();
    let (mine, theirs) = (store(1, &world), store(2, &world));
    for core in [&mine, &theirs] {
        core.write(&[apply(&world, world.grants())]).remove(0).expect("memory can be written");
    }
    let many = input.one_in(3);
    for _ in 0..input.below(20) {
        let mut bundle = commit(&world, &mut input);
        if many {
            let ops = (0..80).map(|n| put(&format!("{n:02}{}", input.byte()), "")).collect();
            bundle = world.commit(0, i64::from(input.byte()), ops);
        }
        let to = input.below(3);
        for core in
            [&mine, &theirs].into_iter().enumerate().filter(|(at, _)| to == 2 || to == *at).map(|(_, core)| core)
        {
            core.write(&[apply(&world, vec![bundle.clone()])]).remove(0).expect("memory can be written");
        }
    }
    let prefixes =
        (0..input.below(3)).map(|_| Prefix::new(input.pick(&NAMES).as_bytes().to_vec()).expect("short")).collect();
    let scope = if input.one_in(2) { Scope::of(&ReadScope { prefixes }) } else { Scope::all() };
    // What it says: what an honest one would, changed; or anything.
    let mut said = theirs.first_claims(world.replica, &Scope::all()).expect("claims can be made");
    let entries = mine.log(world.replica, Position(0), usize::MAX).expect("the log can be read").len() as u64;
    for _ in 0..6 {
        distort(&mut said, &mut input);
        said.truncate(MAX_CLAIMS);
        let claims = said.len() as u64;
        let before = mine.rows_read();
        let Ok(answer) = mine.reconcile(world.replica, &scope, said) else { break };
        let inside = |range: &SlotRange| scope.clamp(range) == [range.clone()];
        assert!(answer.claims.iter().all(|claim| inside(&claim.range)), "claims stay within the scope");
        assert!(answer.missing.iter().all(|missing| inside(&missing.range)), "so does what is sent");
        // A claim is answered with a cut, or with the ids of its entries, in each range of the scope.
        let work = mine.rows_read() - before;
        assert!(
            work <= (claims + 1) * (scope.ranges().len() as u64 + 1) * (entries + 1) * 40,
            "{claims} claims cost {work} rows of {entries}"
        );
        let mut missing: Vec<Missing> = answer.missing;
        let mut sent = 0;
        while !missing.is_empty() {
            let page = mine.missing(world.replica, &scope, &missing, 200).expect("it can be read");
            for item in page.bundles.iter().flat_map(|bundle| &bundle.items) {
                assert!(scope.contains(&item.op), "{:?} is not for this peer", item.op);
                sent += 1;
            }
            missing = page.rest;
        }
        assert!(
            sent <= entries * (claims + 1) * (scope.ranges().len() as u64 + 1),
            "{sent} entries of {entries} for {claims} claims"
        );
        said = theirs
            .reconcile(world.replica, &Scope::all(), answer.claims.into_iter().take(MAX_CLAIMS).collect())
            .expect("an honest side's claims are sound")
            .claims;
    }
    become_equal(&world, [&mine, &theirs]);
}

fn distort(claims: &mut Vec<Claim>, input: &mut Input<'_>) {
    for _ in 0..input.below(4) {
        let at = input.below(claims.len().max(1));
        let ids = |input: &mut Input<'_>| (0..input.below(5)).map(|_| ShortId([input.byte(); 16])).collect::<Vec<_>>();
        let have = match input.below(3) {
            0 => Have::Digest(Digest {
                hash: crate::model::Hash([input.byte(); 32]),
                count: input.long() >> input.below(64),
            }),
            1 => Have::Ids(ids(input)),
            _ => Have::Final(ids(input)),
        };
        match input.below(6) {
            0 if at < claims.len() => drop(claims.remove(at)),
            1 if at < claims.len() => claims[at].have = have,
            2 if at < claims.len() => claims[at].range = range(input),
            3 if at < claims.len() => {
                let again = claims[at].clone();
                claims.insert(at, again);
            }
            4 => *claims = vec![Claim { range: SlotRange::ALL, have }],
            _ => claims.push(Claim { range: range(input), have }),
        }
    }
}

/// Two honest sides, by the rules.
fn become_equal(world: &World, [a, b]: [&Store; 2]) {
    let all = Scope::all();
    for _ in 0..4 {
        let mut claims = a.first_claims(world.replica, &all).expect("claims can be made");
        let mut sides = [(b, a), (a, b)].into_iter().cycle();
        for round in 0.. {
            assert!(round < MAX_ROUNDS, "a reconciliation ends");
            let (here, there) = sides.next().expect("it never ends");
            let mut answer = Vec::new();
            for message in claims.chunks(MAX_CLAIMS) {
                let reconciled =
                    here.reconcile(world.replica, &all, message.to_vec()).expect("an honest side's claims are sound");
                answer.extend(reconciled.claims);
                let mut missing = reconciled.missing;
                while !missing.is_empty() {
                    let page = here.missing(world.replica, &all, &missing, 10_000).expect("it can be read");
                    let bundles = page.bundles.into_iter().map(|bundle| {
                        bundle.verify(world.replica, &mut Default::default()).expect("what is sent is proved")
                    });
                    there.write(&[apply(world, bundles.collect())]).remove(0).expect("memory can be written");
                    missing = page.rest;
                }
            }
            if answer.is_empty() {
                break;
            }
            claims = answer;
        }
        let root = |core: &Store| core.state(world.replica).expect("the replica is there").root;
        if root(a) == root(b) {
            return;
        }
    }
    panic!("two honest sides are not equal after four reconciliations");
}

/// Coded symbols: what an honest side sent comes apart into exactly the difference, and what anybody else sent into no
/// more than there are symbols, in order.
pub fn symbols(data: &[u8]) {
    let mut input = Input::new(data);
    let (mut mine, mut theirs) = (CodedSet::default(), CodedSet::default());
    let mut alone: [BTreeSet<ShortId>; 2] = Default::default();
    for number in 0..input.below(120) as u128 {
        let id = ShortId((u128::from(input.long()) << 64 | number).to_le_bytes());
        match input.below(3) {
            0 => {
                mine.insert(&id);
                theirs.insert(&id);
            }
            1 => {
                mine.insert(&id);
                alone[0].insert(id);
            }
            _ => {
                theirs.insert(&id);
                alone[1].insert(id);
            }
        }
    }
    let mut symbols = theirs.symbols()[..1 + usize::from(input.short()) % SOME_SYMBOLS].to_vec();
    let mut is_honest = true;
    for _ in 0..input.below(5) {
        is_honest = false;
        let at = usize::from(input.short()) % symbols.len();
        match input.below(4) {
            0 => symbols[at].ids[input.below(16)] ^= 1 << input.below(8),
            1 => symbols[at].checks = [input.byte(); 4],
            2 => symbols[at].count = input.long() as u32,
            _ => symbols[at] = symbols[usize::from(input.short()) % symbols.len()],
        }
    }
    match difference(&mine, &symbols) {
        Difference::Known { mine, theirs } => {
            assert!(mine.len() + theirs.len() <= symbols.len(), "no more comes out than went in");
            assert!([&mine, &theirs].iter().all(|ids| ids.is_sorted_by(|a, b| a < b)), "each once, in order");
            if is_honest {
                assert_eq!([mine, theirs].map(BTreeSet::from_iter), alone);
            }
        }
        Difference::Larger(count) => assert!((FIRST_SYMBOLS..=MAX_SYMBOLS).contains(&count)),
        Difference::TooLarge => {}
    }
}
