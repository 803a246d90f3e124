//! What happens when, to the millisecond, over hours of virtual time.

use std::time::Duration;

use sync_core::{
    machine::{
        DialFailure, Input, Output, PeerState,
        limits::{BACKOFF_MAX, CHECK_INTERVAL, STALL_DEADLINE},
    },
    model::ReplicaId,
};

use super::common::*;

const HOUR: u64 = 60 * 60 * 1000;

/// Two nodes with an equal replica and a live session.
fn synced() -> (Pair, ReplicaId) {
    let mut pair = Pair::new();
    let id = pair.a.replica(1, &key(7), 3);
    pair.b.replica(2, &key(7), 2);
    pair.subscribe(id);
    assert!(pair.status().synced && pair.status_at_b().synced);
    (pair, id)
}

fn dials(pair: &Pair) -> usize {
    pair.a.said.iter().filter(|said| said.starts_with("Dial")).count()
}

#[test]
fn b41_an_idle_session_compares_roots_exactly_at_the_interval() {
    for interval in [1000, 7001, 15_000, CHECK_INTERVAL.as_millis() as u64, HOUR] {
        let (mut pair, _) = synced();
        // Both have asked at the default interval, and would ask seldom from then on: what is counted is A's.
        for node in [&mut pair.a, &mut pair.b] {
            node.tell(now(10), Input::CheckInterval { interval: Duration::from_millis(1000 * HOUR) });
        }
        let set_at = pair.at + CHECK_INTERVAL.as_millis() as u64 + 100;
        pair.wait_until(set_at);
        pair.tell(Input::CheckInterval { interval: Duration::from_millis(interval) });
        let before = pair.status().traffic.messages;
        for round in 1..=20 {
            let due = set_at + round * interval;
            pair.wait_until(due - 1);
            assert_eq!(pair.status().traffic.messages, before + round - 1, "not before {due} ms");
            pair.wait_until(due);
            // The root, once: where it is equal nobody has to answer.
            assert_eq!(pair.status().traffic.messages, before + round, "at {due} ms");
        }
        assert!(pair.status().synced && pair.opened() == 1, "it is one session all the time");
    }
}

/// The connection is cut, nothing is written meanwhile, and both meet again: an `Open` and its answer are all that is
/// said about the replica until roots are compared at the interval.
#[test]
fn b19_between_equal_replicas_an_open_and_its_answer_are_all_until_the_interval() {
    let interval = CHECK_INTERVAL.as_millis() as u64;
    let (mut pair, _) = synced();
    for round in 1..=5 {
        let before = (pair.status().traffic, pair.status_at_b().traffic, pair.opened());
        pair.cut();
        pair.work();
        while pair.status().state != PeerState::Live {
            pair.wait_until(pair.at + 1);
        }
        pair.wait_until(pair.at + interval - 1);
        for (status, before) in [(pair.status(), &before.0), (pair.status_at_b(), &before.1)] {
            let moved = status.traffic.since(before);
            assert_eq!((moved.sent, moved.received, moved.messages), (0, 0, 2), "round {round}: {moved:?}");
            assert!(moved.bytes_sent + moved.bytes_received <= 400, "round {round}: {moved:?}");
            assert!(status.synced);
        }
        assert_eq!(pair.status().traffic.since(&before.0).round_trips, 1, "round {round}");
        assert_eq!(pair.opened(), before.2 + 1, "round {round}");
    }
}

/// Nobody can be reached for six hours, and both sides write. Tries go on and are never further apart than the longest
/// delay; so when the network is back, that is how long it takes at most, and nobody has to do anything.
#[test]
fn b24_after_hours_of_partition_both_converge_within_the_longest_delay() {
    const WRITES: u32 = 40;
    let longest = BACKOFF_MAX.as_millis() as u64 + 100;
    let (mut pair, id) = synced();
    pair.wait_until(pair.at + HOUR);
    pair.reachable = Err(DialFailure::Unreachable);
    pair.cut();
    pair.work();
    let (cut_at, before) = (pair.at, dials(&pair));
    pair.a.put(1, id, "by a", WRITES);
    pair.b.put(2, id, "by b", WRITES);
    pair.work();
    while pair.at < cut_at + 6 * HOUR {
        let status = pair.status();
        assert_eq!((status.state, status.pending), (PeerState::Backoff, u64::from(WRITES)));
        let next = status.next_try_ms.unwrap();
        assert!(next <= longest, "{next} ms until the next try");
        let tried = dials(&pair);
        pair.wait_until(pair.at + next + 1);
        assert_eq!(dials(&pair), tried + 1, "and then it is tried");
    }
    // In the mean half of the longest delay passes between two of them.
    let tried = (dials(&pair) - before) as u64;
    assert!((6 * HOUR / longest..=6 * HOUR / longest * 4).contains(&tried), "{tried} tries");
    let moved = pair.status().traffic;
    pair.reachable = Ok(());
    pair.wait_until(pair.at + longest);
    let status = pair.status();
    assert_eq!((status.state, status.synced, status.pending), (PeerState::Live, true, 0));
    let roots = [&pair.a, &pair.b].map(|node| block_on(node.store.state(id)).unwrap().root);
    assert_eq!(roots[0], roots[1]);
    let moved = status.traffic.since(&moved);
    assert_eq!((moved.sent, moved.received), (WRITES.into(), WRITES.into()), "what was written meanwhile, once");
}

/// By hand a job that waits is tried at this very moment, however long it would have waited; when that fails too, the
/// schedule goes on.
#[test]
fn b39_what_waits_for_its_next_try_is_tried_at_once_when_told() {
    let (mut pair, _) = synced();
    pair.reachable = Err(DialFailure::Unreachable);
    pair.cut();
    pair.work();
    for _ in 0..20 {
        let next = pair.status().next_try_ms.unwrap();
        assert!(next > 0 && pair.status().state == PeerState::Backoff);
        pair.wait_until(pair.at + next / 2);
        let tried = dials(&pair);
        pair.tell(Input::RetryNow);
        assert_eq!(dials(&pair), tried + 1);
        let again = pair.status().next_try_ms.unwrap();
        pair.wait_until(pair.at + again + 1);
        assert_eq!(dials(&pair), tried + 2, "the schedule goes on");
    }
}

/// The story: writes followed each other closely. When the store was read for the peer it had one more than the machine
/// had heard of; the peer's answer, with its root, came before the word of that one, and was not compared any more: both
/// were equal and did not know it until the interval.
#[test]
fn b29_an_answer_that_comes_before_the_word_of_a_write_is_compared_when_that_comes() {
    let (mut pair, id) = synced();
    let one = pair.a.write(1, id, "one", 1);
    let two = pair.a.write(1, id, "two", 1);
    pair.tell(Input::Changed { replica: id, state: one, written: None });
    assert_eq!(pair.b.count(id), two.root.count, "both are there already");
    assert!(!pair.status().synced);
    pair.tell(Input::Changed { replica: id, state: two, written: None });
    assert!(pair.status().synced && pair.status_at_b().synced);
    assert_eq!(pair.status().pending, 0);
}

/// What is written here and what comes from a peer may become durable together, and either be heard of first.
#[test]
fn b48_each_entry_is_told_once_and_as_what_it_was() {
    let told = |node: &Node, kind: &str| -> u64 {
        let events = node.said.iter().filter(|said| said.starts_with(&format!("Event({kind}")));
        let count = |said: &String| said.split("entries: ").nth(1).unwrap().trim_end_matches([' ', '}', ')']).parse();
        events.map(|said| count(said).unwrap_or(0)).sum::<u64>()
    };
    for steps in 0..40 {
        let (mut pair, id) = synced();
        let before = [told(&pair.a, "Written"), told(&pair.a, "Received")];
        pair.b.put(2, id, "from there", 3);
        for _ in 0..steps {
            pair.step();
        }
        // Durable here at any time of it, and said later: another write and a look at what is there come before.
        let first = pair.a.write(1, id, "first", 2);
        let second = pair.a.write(1, id, "second", 1);
        pair.a.tell(now(pair.at), Input::Changed { replica: id, state: second.clone(), written: Some(1) });
        for _ in 0..steps / 2 {
            pair.step();
        }
        pair.a.tell(now(pair.at), Input::Changed { replica: id, state: first, written: Some(2) });
        pair.work();
        let beneath = pair.a.write(1, id, "beneath", 1);
        pair.a.tell(now(pair.at), Input::Changed { replica: id, state: beneath.clone(), written: None });
        pair.a.tell(now(pair.at), Input::Changed { replica: id, state: beneath, written: None });
        pair.work();
        let after = [told(&pair.a, "Written"), told(&pair.a, "Received")];
        assert_eq!([after[0] - before[0], after[1] - before[1]], [2 + 1 + 1, 3], "{steps}");
    }
}

/// A write can be on its way to the machine while its replica is dropped.
#[test]
fn b55_what_was_written_last_brings_no_dropped_replica_back() {
    let (mut pair, id) = synced();
    let last = pair.a.write(1, id, "last", 1);
    pair.tell(Input::Dropped { replica: id });
    pair.tell(Input::Changed { replica: id, state: last, written: Some(1) });
    assert!(pair.a.machine.status().is_empty());
}

/// Who asks for a replica that is dropped before the answer is told so, and keeps its link.
#[test]
fn b55_who_has_asked_for_a_replica_that_is_dropped_meanwhile_is_refused() {
    let mut pair = Pair::new();
    let id = pair.a.replica(1, &key(7), 3);
    pair.b.replica(2, &key(7), 0);
    pair.subscribe_only(id);
    let asked = |pair: &Pair| pair.b.to_do.iter().any(|output| format!("{output:?}").contains("Prepare"));
    while !asked(&pair) {
        assert!(pair.step(), "B looks at what it has");
    }
    pair.b.tell(now(pair.at), Input::Dropped { replica: id });
    pair.work();
    assert_eq!(pair.status().state, PeerState::Parked);
    pair.wait_until(pair.at + 60_000);
    let lost = |(_, input): &&(_, Input)| matches!(input, Input::Disconnected { .. });
    assert_eq!(pair.a.told.iter().filter(lost).count(), 0, "the link serves other replicas");
}

/// What is written beneath the machine and told when there is time for it is not what was written through it meanwhile.
#[test]
fn b48_what_is_written_while_something_beneath_waits_to_be_told_is_told_once() {
    let told = |node: &Node| -> u64 {
        let events = node.said.iter().filter(|said| said.starts_with("Event(Written"));
        let count = |said: &String| said.split("entries: ").nth(1).unwrap().trim_end_matches([' ', '}', ')']).parse();
        events.map(|said| count(said).unwrap_or(0)).sum::<u64>()
    };
    let (mut pair, id) = synced();
    let before = told(&pair.a);
    pair.b.put(2, id, "from there", 3);
    let is_work = |output: &Output| matches!(output, Output::Store { .. });
    while !pair.a.to_do.iter().any(is_work) {
        assert!(pair.step(), "it comes, and its signatures are to be checked");
    }
    // The store takes its time over that.
    let at = pair.a.to_do.iter().position(is_work).unwrap();
    let slow = pair.a.to_do.remove(at).unwrap();
    let beneath = pair.a.write(1, id, "beneath", 1);
    pair.a.tell(now(pair.at), Input::Changed { replica: id, state: beneath, written: None });
    assert_eq!(told(&pair.a), before, "what comes from the peer may be among it");
    // Durable, and seen by another opening before it is told.
    let mine = pair.a.write(1, id, "mine", 2);
    pair.cut();
    pair.wait_until(pair.at + 5_000);
    pair.a.to_do.push_back(slow);
    pair.work();
    pair.a.tell(now(pair.at), Input::Changed { replica: id, state: mine, written: Some(2) });
    pair.work();
    assert_eq!(told(&pair.a) - before, 1 + 2);
}

/// The story: several frames were here when the first was taken in, and its root was equal. That counted for the others
/// too, which had come before: after the last one nobody said a root, and neither side knew that they were equal until
/// the interval.
#[test]
fn b29_what_is_equal_after_a_frame_says_nothing_about_those_that_wait_behind_it() {
    for frames in 1..=6 {
        let (mut pair, id) = synced();
        for _ in 0..frames {
            // The same key each time. A does all that it has to do; B has not begun.
            pair.a.put(1, id, "k", 1);
            while !pair.a.to_do.is_empty() {
                pair.step();
            }
        }
        pair.work();
        assert_eq!(pair.a.count(id), pair.b.count(id));
        assert!(pair.status().synced && pair.status_at_b().synced, "{frames} frames");
    }
}

/// The story: a peer that answered pings and said nothing more about what it was sent was waited for without end.
#[test]
fn a_session_whose_peer_falls_silent_in_the_middle_begins_anew_after_the_deadline() {
    let deadline = STALL_DEADLINE.as_millis() as u64;
    for interval in [CHECK_INTERVAL, CHECK_INTERVAL / 7] {
        let (mut pair, id) = synced();
        pair.tell(Input::CheckInterval { interval });
        pair.wait_until(pair.at + 1_000);
        pair.b_says_nothing = true;
        pair.a.put(1, id, "more", 3);
        pair.work();
        let silent_since = pair.at;
        let given_up = |pair: &Pair| {
            pair.a.said.iter().filter(|said| said.contains("has said nothing more in the middle")).count()
        };
        pair.wait_until(silent_since + deadline - 1);
        assert_eq!((given_up(&pair), pair.status().state), (0, PeerState::Live), "its link lives");
        assert_eq!(pair.status().pending, 3, "and nothing is confirmed");
        pair.b_says_nothing = false;
        // From there a first backoff, and the way.
        pair.wait_until(silent_since + deadline + 2_000);
        assert_eq!(given_up(&pair), 1, "asking every {interval:?}");
        assert!(pair.status().synced && pair.status_at_b().synced);
        assert_eq!((pair.status().pending, pair.a.count(id)), (0, pair.b.count(id)));
    }
}
