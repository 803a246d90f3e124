//! Scenarios from seeds. Each seed switches each kind of fault and operation on or off (swarm
//! testing, Groce et al. 2012); one in eight has no fault at all.

use super::{
    draw::{Draw, Stream},
    scenario::*,
};
use crate::{
    machine::limits::Limits,
    model::{MAX_INLINE_LEN, MAX_KEY_LEN, Right},
    store::reconcile::Widths,
    testing::random::Random,
};

/// The kinds of faults that a seed may switch on.
const FAULTS: usize = 12;

/// That of a device that loses its store, and of one whose store comes back from a copy.
const WIPE: usize = 7;
const ROLLBACK: usize = 8;

/// The kinds of operations beside writing.
const OPERATIONS: usize = 9;

const HOUR_MS: u64 = 3_600_000;

/// What a seed has switched on.
struct Swarm {
    faults: Vec<usize>,
    operations: Vec<usize>,
}

impl Swarm {
    fn new(draw: Draw) -> Self {
        let mut random = draw.random(Stream::Knobs, 1, 0);
        let faultless = random.below(8) == 0;
        let on = |random: &mut Random, count: usize, percent: usize| -> Vec<usize> {
            (0..count).filter(|_| random.percent(percent)).collect()
        };
        let faults = on(&mut random, FAULTS, 40);
        let operations = on(&mut random, OPERATIONS, 40);
        match faultless {
            true => Self { faults: Vec::new(), operations: Vec::new() },
            false => Self { faults, operations },
        }
    }
}

impl Scenario {
    /// The scenario of a seed; the same for ever for the same code.
    pub fn generate(seed: u64) -> Self {
        let draw = Draw(seed);
        let swarm = Swarm::new(draw);
        let mut random = draw.random(Stream::Topology, 0, 0);
        // Small networks find most and are fast; large ones find the rest.
        let count = match random.below(10) {
            0..=4 => 2 + random.below(2),
            5..=7 => 4 + random.below(2),
            _ => 6 + random.below(4),
        };
        let knobs = knobs(draw, swarm.faults.is_empty());
        let skewed = swarm.faults.contains(&9);
        let nodes = (0..count)
            .map(|node| {
                let mut random = draw.random(Stream::Topology, 1, node as u64);
                let clock_ms = if skewed { random.below(40_000) as i64 - 20_000 } else { random.below(100) as i64 };
                let addresses = 1 + u8::from(random.below(4) == 0);
                let drift_ppm = if skewed { *random.pick(&[0, 0, 200, -200, 20_000, -20_000]) } else { 0 };
                NodePlan { clock_ms, drift_ppm, addresses, habits: Vec::new(), leaves: None }
            })
            .collect();
        let mut scenario = Self {
            seed,
            heal_ms: 10_000 + random.below(110_000) as u64,
            knobs,
            nodes,
            replicas: Vec::new(),
            paths: Vec::new(),
            operations: Vec::new(),
            faults: Vec::new(),
        };
        for replica in 0..[1, 1, 1, 2, 2, 3, 4][random.below(7)] {
            scenario.replicas.push(replica_plan(draw, replica, count, scenario.heal_ms));
        }
        if !swarm.faults.is_empty() {
            hostile(draw, &mut scenario);
            leaving(draw, &mut scenario);
        }
        scenario.paths = paths(draw, &scenario);
        scenario.operations = operations(draw, &scenario, &swarm);
        scenario.faults = faults(draw, &scenario, &swarm);
        if swarm.faults.contains(&WIPE) {
            used_anew(draw, &mut scenario);
        }
        if swarm.faults.contains(&ROLLBACK) {
            by_turns(draw, &mut scenario);
        }
        if !swarm.faults.is_empty() {
            on_the_move(draw, &mut scenario);
            cut_before_rights_end(draw, &mut scenario);
            long_absence(draw, &mut scenario);
        }
        one_way(draw, &mut scenario);
        scenario
    }
}

fn knobs(draw: Draw, faultless: bool) -> Knobs {
    let mut random = draw.random(Stream::Knobs, 0, 0);
    let slow = |random: &mut Random, bases: &[u64]| {
        let low = *random.pick(bases);
        (low, low * (1 + random.below(10) as u64))
    };
    Knobs {
        latency_us: slow(&mut random, &[50, 500, 5_000, 50_000, 150_000]),
        execute_us: slow(&mut random, &[10, 100, 1_000, 20_000]),
        reply_us: slow(&mut random, &[10, 100, 1_000, 20_000]),
        grain_us: *random.pick(&[1, 1, 1_000, 5_000_000]),
        dial_failures: if faultless { 0 } else { *random.pick(&[0, 0, 10, 40]) },
        silent_crashes: *random.pick(&[0, 50, 100]),
        late: if faultless { 0 } else { *draw.random(Stream::Knobs, 3, 0).pick(&[0, 5, 30, 200]) },
        lost: if faultless { 0 } else { *draw.random(Stream::Knobs, 4, 0).pick(&[0, 10, 50, 100, 200]) },
        tight: tight(draw),
    }
}

/// One seed in three has small limits.
fn tight(draw: Draw) -> Option<Tight> {
    let mut random = draw.random(Stream::Knobs, 2, 0);
    if random.below(3) > 0 {
        return None;
    }
    let entries_frame_len = *random.pick(&[200, 700, 3_000]);
    let limits = Limits {
        entries_frame_len,
        window_len: entries_frame_len * random.pick(&[1, 2, 8]),
        window_frames: *random.pick(&[8, 16, 64]),
        receipt_len: *random.pick(&[100, 1_000, 64 * 1024]),
        apply_len: entries_frame_len * random.pick(&[1, 4]),
        nearly_empty: *random.pick(&[0, 1, 16]),
        claims: *random.pick(&[2, 5, 256]),
        // At least as much as the parts of a range need: what is left out there is found only when the rest has become equal.
        round_claims: *random.pick(&[16, 40, 16_384]),
        round_len: *random.pick(&[if style_of(draw) == LONG { 40_000 } else { 4_000 }, 8 << 20]),
        symbols: *random.pick(&[0, 0, 1_024]),
        sessions: *random.pick(&[8, 1_024]),
    };
    let widths = Widths {
        // Where rounds are small, forty do not fit: the next reconciliation goes on with them.
        first_parts: *random.pick(if limits.round_claims < 40 { &[1, 2, 8, 40] } else { &[1, 2, 8] }),
        parts: *random.pick(&[2, 3, 16]),
        leaf: *random.pick(&[1, 2, 8]),
        max_ids: *random.pick(&[4, 8_192]),
        max_answers: *random.pick(&[2, 20, 8_192]),
        // Replicas are small here: else all that symbols name would be among the latest.
        look_back: *random.pick(&[0, 5, 4_096]),
    };
    Some(Tight { limits, widths })
}

fn replica_plan(draw: Draw, replica: usize, count: usize, heal_ms: u64) -> ReplicaPlan {
    let mut random = draw.random(Stream::Topology, 2, replica as u64);
    let mut nodes: Vec<usize> = (0..count).collect();
    random.shuffle(&mut nodes);
    // The first replica is everywhere; of the others some nodes have never heard.
    let members = if replica == 0 { count } else { 2 + random.below(count - 1) };
    let late = random.percent(30);
    let (narrow, ending) = (random.percent(45), random.percent(20));
    let style = style_of(draw);
    let members = nodes[1..members.min(count)]
        .iter()
        .enumerate()
        .map(|(at, node)| {
            let prefix = match narrow && random.percent(60) && at > 0 {
                true => {
                    let key = key(&mut random, style);
                    cut(&key, 1 + random.below(key.chars().count().min(PREFIX_LEN)))
                }
                false => String::new(),
            };
            let ends = ending && random.percent(50) && at > 0;
            Member {
                node: *node,
                right: if random.percent(20) { Right::Read } else { Right::Write },
                prefix,
                joins_ms: if late && random.percent(50) { random.below(heal_ms as usize / 2) as u64 } else { 0 },
                expires_ms: ends.then(|| 2_000 + random.below(heal_ms as usize - 4_000) as u64),
                pulls_ms: None,
                widens_ms: None,
            }
        })
        .collect();
    ReplicaPlan { owner: nodes[0], members }
}

/// One seed in three with faults has a hostile node: one that owns nothing. What it may write is its own.
fn hostile(draw: Draw, scenario: &mut Scenario) {
    let mut random = draw.random(Stream::Hostile, u64::MAX, 0);
    let owns = |node: usize| scenario.replicas.iter().any(|plan| plan.owner == node);
    let candidates: Vec<usize> = (0..scenario.nodes.len()).filter(|node| !owns(*node)).collect();
    if candidates.is_empty() || scenario.nodes.len() < 3 || random.below(3) > 0 {
        return;
    }
    let node = *random.pick(&candidates);
    let mut habits: Vec<Habit> = Habit::ALL.into_iter().filter(|_| random.percent(25)).collect();
    if habits.is_empty() {
        habits.push(*random.pick(&Habit::ALL));
    }
    // A stranger, a reader, a writer of a part.
    let standing = if habits.contains(&Habit::ChangeName) { 0 } else { random.below(3) };
    for plan in &mut scenario.replicas {
        if standing == 0 {
            plan.members.retain(|member| member.node != node);
        }
        for member in plan.members.iter_mut().filter(|member| member.node == node) {
            (member.right, member.prefix) = match standing {
                1 => (Right::Read, member.prefix.clone()),
                _ => (Right::Write, "hostile/".into()),
            };
            member.expires_ms = None;
        }
    }
    if habits.contains(&Habit::LiveAhead) {
        scenario.nodes[node].clock_ms = *random.pick(&[300_000, 900_000, 400_000_000_000]);
    }
    scenario.nodes[node].habits = habits;
}

/// In one seed in six with faults, one or two nodes that own nothing leave for good.
fn leaving(draw: Draw, scenario: &mut Scenario) {
    let mut random = draw.random(Stream::Topology, 4, 0);
    if scenario.nodes.len() < 3 || random.below(6) > 0 {
        return;
    }
    for _ in 0..1 + random.below(2) {
        let node = random.below(scenario.nodes.len());
        if scenario.replicas.iter().any(|plan| plan.owner == node) || scenario.is_hostile(node) {
            continue;
        }
        let what = if random.percent(50) { Leave::Dies } else { Leave::CutOff };
        let at_ms = 1_000 + random.below(scenario.heal_ms as usize - 1_000) as u64;
        scenario.nodes[node].leaves = Some(Timed { at_ms, what });
    }
}

/// A connected graph of the members of each replica, and some paths more.
fn paths(draw: Draw, scenario: &Scenario) -> Vec<Path> {
    let mut paths: Vec<Path> = Vec::new();
    let mut add = |path: Path, both: bool| {
        let back = Path { from: path.to, to: path.from };
        for path in [path].into_iter().chain(both.then_some(back)) {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    };
    for node in (0..scenario.nodes.len()).filter(|node| scenario.is_hostile(*node)) {
        let mut random = draw.random(Stream::Hostile, u64::MAX, 1);
        let other = (node + 1 + random.below(scenario.nodes.len() - 1)) % scenario.nodes.len();
        add(Path { from: node, to: other }, false);
    }
    for replica in 0..scenario.replicas.len() {
        let mut random = draw.random(Stream::Topology, 3, replica as u64);
        // Who has a part is known to one that has everything.
        let full: Vec<usize> = scenario.full_members(replica).collect();
        let parts = scenario.replicas[replica].members.iter().filter(|member| !member.is_full());
        for part in parts {
            let other = *random.pick(&full);
            let (from, to) = if random.percent(50) { (part.node, other) } else { (other, part.node) };
            add(Path { from, to }, random.percent(40));
        }
        // And so is who will leave.
        let leaves = |node: &usize| scenario.nodes[*node].leaves.is_some();
        for node in scenario.members(replica).filter(leaves) {
            let other = *random.pick(&full);
            let (from, to) = if random.percent(50) { (node, other) } else { (other, node) };
            add(Path { from, to }, random.percent(40));
        }
        let members = full;
        let shape = random.below(4);
        for (at, node) in members.iter().enumerate().skip(1) {
            let other = match shape {
                0 => members[0],
                1 => members[at - 1],
                _ => members[random.below(at)],
            };
            let path =
                if random.percent(50) { Path { from: *node, to: other } } else { Path { from: other, to: *node } };
            add(path, random.percent(40));
        }
        for _ in 0..random.below(members.len()) {
            let (from, to) = (*random.pick(&members), *random.pick(&members));
            if from != to {
                add(Path { from, to }, random.percent(40));
            }
        }
    }
    paths
}

/// How many kinds of keys there are.
const STYLES: usize = 6;

/// Keys that are neighbours, or as long as they may be.
const LONG: usize = 3;

/// Keys that are no text, and neighbours where a byte is carried.
const BYTES: usize = 5;

/// The longest prefix of a part, and the most that is put before a key.
const PREFIX_LEN: usize = 5;
const WITHIN_LEN: usize = 16;

fn key(random: &mut Random, style: usize) -> String {
    const HOT: [&str; 4] = ["a", "ab", "abc", "b"];
    match style {
        0 => HOT[random.below(4)].into(),
        1 => format!("user{}", random.below(30)),
        2 => format!("docs/{}/{}", random.below(3), random.below(8)),
        LONG => match random.below(6) {
            0 => "a".repeat(MAX_KEY_LEN - WITHIN_LEN),
            1 => "a".repeat(MAX_KEY_LEN - WITHIN_LEN - 1),
            at => ["a", "a\0", "a\0\0", "a\u{1}"][at - 2].into(),
        },
        BYTES => {
            const KEYS: [&str; 8] =
                ["\u{ff}", "\u{ff}\0", "\u{ff}\u{ff}", "\u{fe}\u{ff}", "\u{80}", "\u{7f}", "a\u{ff}", "a\u{ff}\u{ff}b"];
            (*random.pick(&KEYS)).into()
        }
        _ => format!("{:x}", random.bits() % 4_096),
    }
}

/// The first so many characters.
fn cut(key: &str, len: usize) -> String {
    key.chars().take(len).collect()
}

/// Which kind of keys a scenario has.
fn style_of(draw: Draw) -> usize {
    draw.random(Stream::Operations, 0, 0).below(STYLES)
}

fn change(random: &mut Random, style: usize, tag: u64) -> Change {
    match random.below(20) {
        0 | 1 => Change::Delete { key: key(random, style) },
        2 => {
            let key = key(random, style);
            let len = random.below(key.chars().count() + 1);
            Change::DeletePrefix { prefix: cut(&key, len.max(usize::from(random.percent(80)))) }
        }
        _ => {
            let len = match random.below(60) {
                0 => 0,
                1 => MAX_INLINE_LEN - 1,
                2 => MAX_INLINE_LEN,
                3 => MAX_INLINE_LEN + 1,
                _ => 1 + random.below(60),
            };
            Change::Put { key: key(random, style), len, tag }
        }
    }
}

fn operations(draw: Draw, scenario: &Scenario, swarm: &Swarm) -> Vec<Timed<Operation>> {
    let mut random = draw.random(Stream::Operations, 0, 0);
    let style = random.below(STYLES);
    let bursty = random.percent(30);
    let most = match random.below(8) {
        0 => 200,
        1..=3 => 60,
        _ => 25,
    };
    let count = 5 + random.below(most);
    let span = scenario.heal_ms as usize - 1_000;
    let burst = random.below(span);
    let mut operations: Vec<Timed<Operation>> = (0..count as u64)
        .filter_map(|number| {
            let mut random = draw.random(Stream::Operations, 1, number);
            let at_ms = if bursty { burst + random.below(800.min(span - burst).max(1)) } else { random.below(span) };
            let at_ms = 500 + at_ms as u64;
            let replica = random.below(scenario.replicas.len());
            let members: Vec<usize> = scenario.members(replica).collect();
            let node = *random.pick(&members);
            let peer = *random.pick(&members);
            let other = !swarm.operations.is_empty() && random.below(12) == 0;
            let what = if other {
                if node == peer {
                    return None;
                }
                match random.pick(&swarm.operations) {
                    0 => Operation::Promote { replica, node },
                    1 => Operation::Sync { node, replica, peer },
                    2 => Operation::Retry { node },
                    3 => Operation::Block { node, peer },
                    4 => Operation::Remove { node, peer },
                    5 => Operation::Unsubscribe { node, replica, peer },
                    6 => {
                        let members = &scenario.replicas[replica].members;
                        let member = members.iter().find(|member| member.right == Right::Read)?;
                        Operation::Forge { node: member.node, replica, key: key(&mut random, style) }
                    }
                    7 => Operation::Equivocate { node, replica, tag: number },
                    _ => Operation::Shutdown { node, down_ms: random.below(20_000) as u64 },
                }
            } else {
                let as_owner = random.below(8) == 0;
                let node = if as_owner { scenario.replicas[replica].owner } else { node };
                let len = match random.below(20) {
                    0 => 2 + random.below(60),
                    1..=4 => 2 + random.below(5),
                    _ => 1,
                };
                let changes = (0..len as u64).map(|at| change(&mut random, style, number << 16 | at)).collect();
                Operation::Write { node, replica, as_owner, changes }
            };
            Some(Timed { at_ms, what })
        })
        .collect();
    // A block ends again, now and then before the healing.
    let ends: Vec<_> = operations
        .iter()
        .filter_map(|timed| match timed.what {
            Operation::Block { node, peer } => {
                Some(Timed { at_ms: timed.at_ms + 5_000, what: Operation::Unblock { node, peer } })
            }
            _ => None,
        })
        .collect();
    operations.extend(ends);
    operations.extend(twins(draw, scenario, &operations));
    operations.sort_by_key(|timed| timed.at_ms);
    operations
}

/// The same write at two nodes at one time: what the order of arrival must not decide.
fn twins(draw: Draw, scenario: &Scenario, operations: &[Timed<Operation>]) -> Vec<Timed<Operation>> {
    let twin = |(number, timed): (usize, &Timed<Operation>)| {
        let Operation::Write { replica, as_owner: false, changes, .. } = &timed.what else { return None };
        let mut random = draw.random(Stream::Operations, 2, number as u64);
        let is_deletion = !matches!(changes[0], Change::Put { .. });
        let members: Vec<usize> = scenario.members(*replica).collect();
        let what = Operation::Write {
            node: *random.pick(&members),
            replica: *replica,
            as_owner: false,
            changes: changes.clone(),
        };
        random.percent(if is_deletion { 60 } else { 10 }).then_some(Timed { at_ms: timed.at_ms, what })
    };
    operations.iter().enumerate().filter_map(twin).collect()
}

fn faults(draw: Draw, scenario: &Scenario, swarm: &Swarm) -> Vec<Timed<Fault>> {
    if swarm.faults.is_empty() {
        return Vec::new();
    }
    let mut random = draw.random(Stream::Faults, 0, 0);
    let count = 1 + random.below(10 + 2 * scenario.nodes.len());
    let nodes = scenario.nodes.len();
    let mut faults: Vec<Timed<Fault>> = (0..count as u64)
        .filter_map(|number| {
            let mut random = draw.random(Stream::Faults, 1, number);
            let at_ms = 1_000 + random.below(scenario.heal_ms as usize - 1_000) as u64;
            let long = *random.pick(&[300, 3_000, 15_000, 60_000]);
            let for_ms = 1 + random.below(long) as u64;
            let node = random.below(nodes);
            let (a, b) = match random.pick(&scenario.paths) {
                Path { from, to } if random.percent(50) => (*from, *to),
                Path { from, to } => (*to, *from),
            };
            let what = match *random.pick(&swarm.faults) {
                0 => {
                    let side: Vec<usize> = (0..nodes).filter(|_| random.percent(50)).collect();
                    if side.is_empty() || side.len() == nodes {
                        return None;
                    }
                    Fault::Partition { side, for_ms }
                }
                1 => Fault::OneWay { from: a, to: b, for_ms },
                2 => Fault::Cut { a, b },
                3 => Fault::HalfOpen { a, b },
                4 => Fault::Unreachable { node, for_ms },
                5 => Fault::Crash { node, after_outputs: random.below(40) as u32, down_ms: for_ms.min(20_000) },
                6 => Fault::PowerCut { node, after_operations: random.below(60) as u32, down_ms: for_ms.min(20_000) },
                WIPE => Fault::Wipe { node, down_ms: for_ms.min(20_000) },
                ROLLBACK => {
                    Fault::Rollback { node, to_ms: random.below(at_ms as usize) as u64, down_ms: for_ms.min(20_000) }
                }
                9 => {
                    let by_ms = random.below(2_400_000) as i64 - 1_200_000;
                    // A battery that is empty, a year that was typed wrongly.
                    let years = if random.below(6) == 0 { random.below(19) as i64 - 9 } else { 0 };
                    Fault::ClockJump { node, by_ms: by_ms + years * YEAR_MS }
                }
                10 => match random.percent(50) {
                    true => Fault::DiskError { node, after_writes: random.below(10) as u32 },
                    false => Fault::DiskFull { node, for_ms: for_ms.min(20_000) },
                },
                _ => Fault::Pause { node, for_ms: for_ms.min(40_000) },
            };
            Some(Timed { at_ms, what })
        })
        .collect();
    faults.sort_by_key(|timed| timed.at_ms);
    faults
}

/// In one seed in three with devices that lose their stores, one of them is used anew before it hears from anybody: it
/// writes so much that its new change log is longer than where its peers stood in the one that is lost, and little of it
/// stays.
fn used_anew(draw: Draw, scenario: &mut Scenario) {
    let mut random = draw.random(Stream::Faults, 2, 0);
    let replica = random.below(scenario.replicas.len());
    let plan = &scenario.replicas[replica];
    let reads = |node: usize| {
        scenario.member(replica, node).is_some_and(|member| member.right == Right::Read || member.joins_ms > 0)
    };
    let writers: Vec<usize> = scenario.full_members(replica).filter(|node| !reads(*node)).collect();
    if random.below(3) > 0 {
        return;
    }
    // Who has a part fares no better.
    let parts: Vec<usize> = scenario.part_members(replica).filter(|node| !reads(*node)).collect();
    let is_part = !parts.is_empty() && random.percent(60);
    let node = *random.pick(if is_part { &parts } else { &writers });
    let prefix = scenario.member(replica, node).map_or(String::new(), |member| member.prefix.clone());
    let mut write = |at_ms: u64, node: usize, changes: Vec<Change>| {
        let what = Operation::Write { node, replica, as_owner: false, changes };
        scenario.operations.push(Timed { at_ms, what });
    };
    let put = |key: String, tag: u64| Change::Put { key, len: 5, tag };
    // What the others have that it has not: more than what is sent without asking.
    let others = (0..20 + random.below(20) as u64).map(|at| put(format!("{prefix}other{at}"), at)).collect();
    write(600, plan.owner, others);
    let at_ms = 2_000 + random.below(scenario.heal_ms as usize - 6_000) as u64;
    let kept = (0..1 + random.below(4) as u64).map(|at| put(format!("kept{at}"), 1 << 32 | at)).collect();
    write(at_ms + 1_500, node, kept);
    let again = (0..20 + random.below(200) as u64).map(|at| put("again".into(), 1 << 32 | at)).collect();
    write(at_ms + 1_600, node, again);
    scenario.operations.sort_by_key(|timed| timed.at_ms);
    let alone = Fault::Partition { side: vec![node], for_ms: 2_000 + random.below(2_000) as u64 };
    scenario.faults.push(Timed { at_ms, what: alone });
    scenario.faults.push(Timed { at_ms: at_ms + 100, what: Fault::Wipe { node, down_ms: 500 } });
    scenario.faults.sort_by_key(|timed| timed.at_ms);
}

/// In one seed in four with copies of stores, a device is two: a copy of all that it has, its key included, is used by turns
/// with itself. Each writes while it is its turn, on top of where it was the turn before.
fn by_turns(draw: Draw, scenario: &mut Scenario) {
    let mut random = draw.random(Stream::Faults, 6, 0);
    if random.below(4) > 0 {
        return;
    }
    let replica = random.below(scenario.replicas.len());
    let writes = |node: &usize| {
        let member = scenario.member(replica, *node);
        scenario.is_relied_on(*node) && member.is_none_or(|member| member.right != Right::Read && member.joins_ms == 0)
    };
    let members: Vec<usize> = scenario.members(replica).filter(writes).collect();
    let node = *random.pick(&members);
    let turns = 2 + random.below(3) as u64;
    let turn_ms = (scenario.heal_ms - 2_000) / (turns + 2);
    // Where the turn before ended, and where the one before that did.
    let (mut before_ms, mut at_ms) = (1_000 + random.below(turn_ms as usize) as u64, 1_000 + turn_ms);
    let mut write = |turn: u64, random: &mut Random, since_ms: u64, until_ms: u64| {
        for number in 0..1 + random.below(5) as u64 {
            let change =
                Change::Put { key: format!("turn{}", random.below(4)), len: 5, tag: 1 << 33 | turn << 8 | number };
            let what = Operation::Write { node, replica, as_owner: false, changes: vec![change] };
            let at_ms = since_ms + random.below((until_ms - since_ms) as usize) as u64;
            scenario.operations.push(Timed { at_ms, what });
        }
    };
    write(turns, &mut random, before_ms, at_ms);
    for turn in 0..turns {
        let what = Fault::Rollback { node, to_ms: before_ms, down_ms: 1 + random.below(300) as u64 };
        scenario.faults.push(Timed { at_ms, what });
        write(turn, &mut random, at_ms, at_ms + turn_ms);
        // The other goes on where it is now.
        before_ms = at_ms - 1;
        at_ms += 1 + turn_ms / 2 + random.below(turn_ms as usize / 2) as u64;
    }
    scenario.faults.sort_by_key(|timed| timed.at_ms);
    scenario.operations.sort_by_key(|timed| timed.at_ms);
}

/// In most of the seeds where nobody can have what nobody else has, and in some that are made so, members only pull, from
/// the beginning or from some time on, and who has a part may read everything from some time on.
fn one_way(draw: Draw, scenario: &mut Scenario) {
    let mut random = draw.random(Stream::Topology, 5, 0);
    let loses = |fault: &Timed<Fault>| matches!(fault.what, Fault::Wipe { .. } | Fault::Rollback { .. });
    // Who has forged gets a new disk.
    let divides =
        |timed: &Timed<Operation>| matches!(timed.what, Operation::Equivocate { .. } | Operation::Forge { .. });
    let is_unlike = |node: &NodePlan| !node.habits.is_empty() || node.leaves.is_some();
    if random.percent(20) {
        let mut even = scenario.clone();
        even.faults.retain(|fault| !loses(fault));
        even.operations.retain(|timed| !divides(timed));
        for node in &mut even.nodes {
            if !node.habits.is_empty() {
                (node.clock_ms, node.drift_ppm) = (0, 0);
            }
            (node.habits, node.leaves) = (Vec::new(), None);
        }
        // Nobody counted on those who were hostile or left.
        if even.is_connected() {
            *scenario = even;
        }
    }
    let is_even = !scenario.faults.iter().any(loses) && !scenario.operations.iter().any(divides);
    if !is_even || scenario.nodes.iter().any(is_unlike) || random.percent(30) {
        return;
    }
    let heal_ms = scenario.heal_ms as usize;
    let later = |random: &mut Random| 1_000 + random.below(heal_ms - 1_000) as u64;
    for replica in 0..scenario.replicas.len() {
        // Whose right has ended gives what it wrote to whoever takes it.
        if scenario.replicas[replica].members.iter().any(|member| member.expires_ms.is_some()) {
            continue;
        }
        for at in 0..scenario.replicas[replica].members.len() {
            let mut changed = scenario.clone();
            let owner = changed.replicas[replica].owner;
            let member = &mut changed.replicas[replica].members[at];
            if random.percent(40) {
                continue;
            }
            if !member.prefix.is_empty() && random.percent(70) {
                member.widens_ms = Some(later(&mut random));
            }
            if random.percent(if member.widens_ms.is_some() { 85 } else { 70 }) {
                member.pulls_ms = Some(if random.percent(60) { 0 } else { later(&mut random) });
            }
            let path = Path { from: member.node, to: owner };
            if !changed.is_connected() && !changed.paths.contains(&path) {
                changed.paths.push(path);
            }
            if changed.is_connected() {
                *scenario = changed;
            }
        }
        // Their grants are signed anew, and stand behind what they have written.
        for node in scenario.full_members(replica).skip(1).collect::<Vec<_>>() {
            if random.percent(90) {
                let at_ms = later(&mut random);
                scenario.operations.push(Timed { at_ms, what: Operation::Promote { replica, node } });
            }
        }
    }
    scenario.operations.sort_by_key(|timed| timed.at_ms);
}

/// In one seed in four with faults, nodes are suddenly elsewhere, and clocks stand still.
fn on_the_move(draw: Draw, scenario: &mut Scenario) {
    let mut random = draw.random(Stream::Faults, 4, 0);
    if random.below(4) > 0 {
        return;
    }
    for _ in 0..1 + random.below(4) {
        let node = random.below(scenario.nodes.len());
        let at_ms = 1_000 + random.below(scenario.heal_ms as usize - 1_000) as u64;
        let what = match random.percent(60) {
            true => Fault::Move { node },
            false => Fault::ClockStops { node, for_ms: 1 + random.below(60_000) as u64 },
        };
        scenario.faults.push(Timed { at_ms, what });
    }
    scenario.faults.sort_by_key(|timed| timed.at_ms);
}

/// Half of the grants that end do so about when a connection of who has them was cut: while it is opened again.
fn cut_before_rights_end(draw: Draw, scenario: &mut Scenario) {
    let mut random = draw.random(Stream::Faults, 5, 0);
    let turn_ms = (scenario.knobs.latency_us.1 + scenario.knobs.execute_us.1) as usize / 1_000;
    let mut cuts = Vec::new();
    for member in scenario.replicas.iter().flat_map(|plan| &plan.members) {
        let Some(expires_ms) = member.expires_ms.filter(|_| random.percent(50)) else { continue };
        for path in scenario.paths.iter().filter(|path| path.from == member.node || path.to == member.node) {
            let at_ms = expires_ms.saturating_sub(random.below(1 + 8 * turn_ms) as u64);
            cuts.push(Timed { at_ms, what: Fault::Cut { a: path.from, b: path.to } });
        }
    }
    scenario.faults.extend(cuts);
    scenario.faults.sort_by_key(|timed| timed.at_ms);
}

/// In one seed in forty with faults, everybody is away for hours or up to thirty days, and comes back within minutes.
fn long_absence(draw: Draw, scenario: &mut Scenario) {
    let mut random = draw.random(Stream::Faults, 3, 0);
    if random.below(40) > 0 {
        return;
    }
    let away_ms = HOUR_MS * *random.pick(&[1, 24, 7 * 24, 30 * 24]);
    let from_ms = 2_000 + random.below(scenario.heal_ms as usize / 2) as u64;
    let later = |at_ms: &mut u64| *at_ms += if *at_ms > from_ms { away_ms } else { 0 };
    scenario.operations.iter_mut().for_each(|timed| later(&mut timed.at_ms));
    for timed in &mut scenario.faults {
        later(&mut timed.at_ms);
        if let Fault::Rollback { to_ms, .. } = &mut timed.what {
            later(to_ms);
        }
    }
    for member in scenario.replicas.iter_mut().flat_map(|plan| &mut plan.members) {
        later(&mut member.joins_ms);
        member.expires_ms.iter_mut().for_each(later);
    }
    scenario.nodes.iter_mut().filter_map(|node| node.leaves.as_mut()).for_each(|leaves| later(&mut leaves.at_ms));
    scenario.heal_ms += away_ms;
    for node in 0..scenario.nodes.len() {
        let what = Operation::Shutdown { node, down_ms: away_ms + random.below(120_000) as u64 };
        scenario.operations.push(Timed { at_ms: from_ms, what });
    }
    scenario.operations.sort_by_key(|timed| timed.at_ms);
}
