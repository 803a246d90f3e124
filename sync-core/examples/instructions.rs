//! The paths whose instructions are counted: `bench/instructions` runs this under callgrind, which counts what happens
//! beneath `measured`. The counts are the same on a machine that is busy.

use std::{hint::black_box, sync::LazyLock};

use store_mem::MemEngine;
use sync_core::{
    machine::wire::{decode_bundles, encode_bundles},
    model::{HybridClock, Key, Op, ReplicaId, SecretKey, Timestamp, Value, VerifiedBundle, Verifier, sign_commit},
    store::{
        Apply, Core, Missing, Origin, Scope, ShortId, Write,
        coded::{Difference, difference},
    },
};

/// How many claims one message may have.
const MAX_CLAIMS: usize = 256;

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

/// Made once, and outside of what is counted: a key's public half costs as much as a signature.
static OWNER: LazyLock<SecretKey> = LazyLock::new(|| SecretKey::from_bytes([1; 32]));

fn replica() -> ReplicaId {
    ReplicaId(OWNER.public())
}

fn commit(numbers: std::ops::Range<usize>) -> VerifiedBundle {
    let op = |number: usize| {
        let key = format!("{:016x}/{number}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Op::Put { key: Key::try_from(key.as_str()).expect("a key"), value: Value::Inline(vec![7; 32].into()) }
    };
    sign_commit(replica(), &OWNER, &HybridClock::default(), NOW, numbers.map(op).collect()).expect("a commit")
}

/// Symbols until one knows what differs, and the entries of both found in their logs. Answers how many that were.
fn reconcile_by_symbols(sides: [&Core<MemEngine>; 2]) -> u64 {
    let head = |side: &Core<MemEngine>| side.state(replica()).expect("a state").head;
    let sets = sides.map(|side| side.coded(replica(), head(side), 512).expect("read").expect("symbols"));
    let found = difference(&sets[0], &sets[1].symbols()[..512]);
    let Difference::Known { mine, theirs } = found else { panic!("so many symbols tell it") };
    let scope = Scope::all();
    let count = |(side, ids): (&Core<MemEngine>, &Vec<ShortId>)| {
        let found = side.find(replica(), ids).expect("found");
        assert!(found.is_complete, "they are the latest");
        side.missing(replica(), &scope, &found.missing, usize::MAX).expect("missing").entries
    };
    sides.into_iter().zip([&mine, &theirs]).map(count).sum()
}

/// What is counted.
#[inline(never)]
fn measured<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

fn core(bundles: Vec<VerifiedBundle>) -> Core<MemEngine> {
    let core = Core::open(MemEngine::default(), [9; 32]).expect("a store");
    core.write(&[Write::CreateReplica { replica: replica(), records: vec![] }]).remove(0).expect("a replica");
    write(&core, bundles);
    core
}

fn write(core: &Core<MemEngine>, bundles: Vec<VerifiedBundle>) {
    let batch = Apply { replica: replica(), bundles, origin: Origin::Local, now: NOW, records: vec![] };
    core.write(&[Write::Apply(batch)]).remove(0).expect("applied");
}

/// Ranges until both know what the other lacks. Answers how many entries that were.
fn reconcile(sides: [&Core<MemEngine>; 2]) -> u64 {
    let scope = Scope::all();
    let mut claims = sides[0].first_claims(replica(), &scope).expect("claims");
    let mut lacking: [Vec<Missing>; 2] = Default::default();
    let mut at = 1;
    while !claims.is_empty() {
        let mut answers = Vec::new();
        for message in claims.chunks(MAX_CLAIMS) {
            let answer = sides[at].reconcile(replica(), &scope, message.to_vec()).expect("reconciled");
            lacking[at].extend(answer.missing);
            answers.extend(answer.claims);
        }
        claims = answers;
        at = 1 - at;
    }
    let count = |(side, missing): (&Core<MemEngine>, &Vec<Missing>)| {
        side.missing(replica(), &scope, missing, usize::MAX).expect("missing").entries
    };
    sides.into_iter().zip(&lacking).map(count).sum()
}

fn main() {
    let work = std::env::args().nth(1).unwrap_or_default();
    let single: Vec<_> = (0..64).map(|number| commit(number..number + 1).to_bundle()).collect();
    let sealed = vec![commit(0..256).to_bundle()];
    let verify = |bundles: Vec<sync_core::model::Bundle>| {
        measured(|| {
            let mut verifier = Verifier::default();
            for bundle in bundles {
                bundle.verify(replica(), &mut verifier).expect("it is good");
            }
        });
    };
    match work.as_str() {
        "encode" => drop(measured(|| encode_bundles(&single))),
        "decode" => {
            let encoded = encode_bundles(&single);
            measured(|| decode_bundles(&encoded).expect("they are good"));
        }
        "verify-single" => verify(single),
        "verify-sealed" => verify(sealed),
        "apply" => {
            let core = core(vec![commit(0..10_000)]);
            let more: Vec<_> = (0..64).map(|number| commit(20_000 + number..20_001 + number)).collect();
            measured(|| more.into_iter().for_each(|bundle| write(&core, vec![bundle])));
        }
        "reconcile" => {
            let sides = [20_000, 30_000].map(|from| core(vec![commit(0..10_000), commit(from..from + 64)]));
            let found = measured(|| reconcile([&sides[0], &sides[1]]));
            assert_eq!(found, 128, "all that differs is found");
        }
        "reconcile-symbols" => {
            let sides = [20_000, 30_000].map(|from| core(vec![commit(0..10_000), commit(from..from + 64)]));
            let found = measured(|| reconcile_by_symbols([&sides[0], &sides[1]]));
            assert_eq!(found, 128, "all that differs is found");
        }
        _ => {
            eprintln!("instructions (encode|decode|verify-single|verify-sealed|apply|reconcile|reconcile-symbols)");
            std::process::exit(2);
        }
    }
}
