//! What a store goes through before the power goes: twenty scripts, and random ones.

use bytes::Bytes;
use sync_core::{
    model::{Bundle, Hash, Op, Value, VerifiedBundle, Verifier},
    store::{Apply, NodeKind, NodeRecord, Origin, Write},
    testing::{
        random::Random,
        store_suite::world::{NOW, World, delete, delete_prefix, key, peer, put},
    },
};

/// One step, acknowledged as a whole.
#[derive(Debug, Clone)]
pub enum Step {
    /// One transaction.
    Write(Vec<Write>),
    /// The store is closed in good order and opened again.
    Reopen,
}

/// A name, and the steps.
pub struct Script {
    pub name: String,
    pub steps: Vec<Step>,
}

fn create(world: &World) -> Step {
    Step::Write(vec![Write::CreateReplica { replica: world.replica, records: vec![record(NodeKind::Job, "made", 1)] }])
}

fn record(kind: NodeKind, name: &str, number: usize) -> NodeRecord {
    NodeRecord { kind, name: name.to_owned().into(), value: Some(number.to_string().into_bytes().into()) }
}

fn apply(world: &World, origin: Origin, bundles: Vec<VerifiedBundle>, number: usize) -> Write {
    let records = vec![record(NodeKind::Job, "cursor", number)];
    Write::Apply(Apply { replica: world.replica, bundles, origin, now: NOW, records })
}

fn local(world: &World, number: usize, ops: Vec<Op>) -> Write {
    apply(world, Origin::Local, vec![world.commit(0, number as i64 * 1_000 - 500_000, ops)], number)
}

fn one(write: Write) -> Step {
    Step::Write(vec![write])
}

fn puts(names: impl IntoIterator<Item = usize>, value: &str) -> Vec<Op> {
    names.into_iter().map(|n| put(&format!("{n:04}"), value)).collect()
}

fn blob(name: &str, number: u8) -> Op {
    Op::Put { key: key(name), value: Value::Blob { hash: Hash([number; 32]), len: 40_000 } }
}

/// A part of a commit, as a peer would send it.
fn part(bundle: &VerifiedBundle, keep: impl Fn(u32) -> bool) -> VerifiedBundle {
    let whole = bundle.to_bundle();
    let items: Vec<_> = whole.items.into_iter().filter(|item| keep(item.index)).collect();
    let indices: Vec<u32> = items.iter().map(|item| item.index).collect();
    let part = Bundle { seal: whole.seal, proof: bundle.tree().prove(&indices), items };
    part.verify(bundle.replica(), &mut Verifier::default()).expect("a part of a good commit is good")
}

/// The twenty scripts.
pub fn scripted() -> Vec<Script> {
    let world = World::default();
    let other = World::new(2);
    let w = &world;
    let script = |name: &str, steps: Vec<Step>| Script { name: name.into(), steps };
    // Most begin with a replica.
    let on = |name: &str, steps: Vec<Step>| script(name, [vec![create(w)], steps].concat());
    let many = |count: usize, step: &dyn Fn(usize) -> Step| (0..count).map(step).collect::<Vec<_>>();
    let writer = |author: usize, at: i64, ops| world.commit(author, at, ops);
    let whole = writer(1, -300, puts(0..40, "of forty"));
    vec![
        script("nothing but opening", vec![]),
        script("made, opened again, made another", vec![create(w), Step::Reopen, create(&other)]),
        on("single writes", many(8, &|n| one(local(w, n, puts([n], "v"))))),
        on("one key again and again", many(8, &|n| one(local(w, n, puts([7], &n.to_string()))))),
        on("values of the largest size", many(4, &|n| one(local(w, n, puts([n], &"x".repeat(16_384)))))),
        on("commits of many entries", many(3, &|n| one(local(w, n, puts(n * 80..n * 80 + 120, "v"))))),
        on("one commit of a thousand", vec![one(local(w, 0, puts(0..1_000, "v")))]),
        on(
            "deletions",
            many(6, &|n| {
                one(local(
                    w,
                    n,
                    if n % 2 == 0 { puts(0..20, "v") } else { (0..15).map(|k| delete(&format!("{k:04}"))).collect() },
                ))
            }),
        ),
        on(
            "prefix deletions",
            many(6, &|n| one(local(w, n, if n % 2 == 0 { puts(0..60, "v") } else { vec![delete_prefix("000")] }))),
        ),
        on(
            "everything deleted, and again",
            many(6, &|n| one(local(w, n, if n % 3 == 2 { vec![delete_prefix("")] } else { puts(0..40, "v") }))),
        ),
        on("grants and what they let in", {
            let grants = world.grants();
            let mut steps: Vec<Step> =
                grants.into_iter().map(|grant| one(apply(w, Origin::Peer(peer(1)), vec![grant], 1))).collect();
            steps.extend((1..4).map(|n| {
                one(apply(w, Origin::Peer(peer(1)), vec![writer(n, -200, vec![put("a", "by a writer")])], n))
            }));
            steps
        }),
        on(
            "a group of writers in one transaction",
            many(4, &|n| Step::Write((0..8).map(|k| local(w, n * 8 + k, puts([n * 8 + k], "v"))).collect())),
        ),
        on("parts of a commit", {
            let mut steps = vec![one(apply(w, Origin::Peer(peer(1)), world.grants(), 0))];
            steps.extend(
                (0..4u32).map(|n| {
                    one(apply(w, Origin::Peer(peer(1)), vec![part(&whole, |index| index % 4 == n)], n as usize))
                }),
            );
            steps
        }),
        on(
            "records alone",
            many(8, &|n| {
                one(Write::Save {
                    records: vec![record(NodeKind::Peer, &format!("{}", n % 3), n), record(NodeKind::Setting, "s", n)],
                })
            }),
        ),
        on(
            "records and entries together",
            many(5, &|n| {
                Step::Write(vec![
                    local(w, n, puts([n], "v")),
                    Write::Save { records: vec![record(NodeKind::Key, "k", n)] },
                ])
            }),
        ),
        on("a replica dropped and made again", {
            let drop = Step::Write(vec![Write::DropReplica {
                replica: w.replica,
                records: vec![record(NodeKind::Removed, "r", 1)],
            }]);
            vec![one(local(w, 0, puts(0..50, "v"))), drop.clone(), create(w), one(local(w, 1, puts(0..9, "w"))), drop]
        }),
        on("two replicas in turn", {
            let mut steps = vec![create(&other)];
            steps.extend((0..6).map(|n| one(local([w, &other][n % 2], n, puts(0..12, &n.to_string())))));
            steps
        }),
        on(
            "opened again after each write",
            many(4, &|n| one(local(w, n, puts(0..10, &n.to_string()))))
                .into_iter()
                .flat_map(|step| [step, Step::Reopen])
                .collect(),
        ),
        on(
            "references to content",
            many(5, &|n| one(local(w, n, vec![blob("a", n as u8), blob("b", 1), delete("a")]))),
        ),
        on("grown and emptied", {
            let mut steps = many(3, &|n| one(local(w, n, puts(n * 40..n * 40 + 40, &"y".repeat(3_000)))));
            steps.push(one(local(w, 3, vec![delete_prefix("")])));
            steps.extend(many(3, &|n| one(local(w, 4 + n, puts(0..30, &"z".repeat(2_000))))));
            steps
        }),
    ]
}

/// A random script.
pub fn random(seed: u64) -> Script {
    let mut random = Random::new(seed);
    let worlds = [World::new(1), World::new(2)];
    let mut steps: Vec<Step> = worlds.iter().map(create).collect();
    steps.push(one(apply(&worlds[0], Origin::Peer(peer(1)), worlds[0].grants(), 0)));
    for number in 0..4 + random.below(10) {
        let world = &worlds[usize::from(random.percent(25))];
        steps.push(match random.below(12) {
            0 => Step::Reopen,
            1 => one(Write::Save { records: vec![record(NodeKind::Peer, &random.below(4).to_string(), number)] }),
            2 => {
                let ops = puts(0..1 + random.below(30), "by a writer");
                let bundle = world.commit(1 + random.below(3), number as i64 * 1_000 - 400_000, ops);
                let kept = random.bits();
                let bundle = part(&bundle, |index| index == 0 || kept >> (index % 64) & 1 == 1);
                one(apply(world, Origin::Peer(peer(2)), vec![bundle], number))
            }
            3..=5 => {
                Step::Write((0..1 + random.below(6)).map(|_| local(world, number, random_ops(&mut random))).collect())
            }
            _ => one(local(world, number, random_ops(&mut random))),
        });
    }
    Script { name: format!("random script {seed}"), steps }
}

fn random_ops(random: &mut Random) -> Vec<Op> {
    let count = *random.pick(&[1, 1, 2, 5, 20, 100]);
    let op = |random: &mut Random| {
        let name = format!("{:03}", random.below(150));
        match random.below(20) {
            0..=12 => {
                let len = *random.pick(&[0, 1, 30, 300, 5_000]);
                Op::Put { key: key(&name), value: Value::Inline(Bytes::from(vec![random.below(256) as u8; len])) }
            }
            13 => blob(&name, random.below(4) as u8),
            14..=18 => delete(&name),
            _ => delete_prefix(&name[..random.below(3)]),
        }
    };
    (0..count).map(|_| op(random)).collect()
}
