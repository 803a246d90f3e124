//! Which way entries go, when it is not both.

use std::time::Duration;

use sync_core::{
    machine::{AskId, Direction, Input, PeerState, Target, limits::Limits},
    model::ReplicaId,
};

use super::common::*;

/// Entries that both have from the beginning: the rights.
const RIGHTS: u64 = 2;

/// A has so many values, B so many; A's replica has this direction.
fn pair(direction: Direction, values: (u32, u32)) -> (Pair, ReplicaId) {
    let mut pair = Pair::new();
    let id = pair.a.replica(1, &key(7), values.0);
    pair.b.replica(2, &key(7), values.1);
    pair.tell(Input::SetDirection { replica: id, direction });
    pair.subscribe(id);
    (pair, id)
}

fn counts(pair: &Pair, id: ReplicaId) -> (u64, u64) {
    (pair.a.count(id), pair.b.count(id))
}

#[test]
fn b30_pull_only_sends_no_data_whether_positions_are_known_or_not() {
    for (mine, theirs) in [(3, 5), (40, 30)] {
        let (mut pair, id) = pair(Direction::Pull, (mine, theirs));
        let (mine, theirs) = (u64::from(mine), u64::from(theirs));
        assert_eq!(counts(&pair, id), (RIGHTS + mine + theirs, RIGHTS + theirs));
        pair.b.put(2, id, "more of b", 4);
        pair.a.put(1, id, "more of a", 4);
        pair.work();
        assert_eq!(counts(&pair, id), (RIGHTS + mine + theirs + 8, RIGHTS + theirs + 4));
        let status = pair.status();
        assert_eq!((status.state, status.synced, status.pending), (PeerState::Live, false, 0), "nothing is owed");
        assert_eq!(status.traffic.sent, 0);
        assert!(!pair.status_at_b().synced, "b does not have everything, and does not say so");
        // Hours of idling change nothing, and cost next to nothing.
        let before = pair.status().traffic.messages;
        pair.wait_until(pair.at + 600_000);
        assert_eq!(counts(&pair, id).1, RIGHTS + theirs + 4);
        assert!(pair.status().traffic.messages - before <= 80, "{:?}", pair.status().traffic);
        assert!(pair.a.machine.obstacles().iter().any(|it| it.cause.contains("only pulls")));
    }
}

#[test]
fn b30_pull_only_is_synced_when_the_roots_are_equal_and_only_then() {
    let (mut pair, id) = pair(Direction::Pull, (0, 30));
    assert_eq!(counts(&pair, id), (RIGHTS + 30, RIGHTS + 30));
    assert!(pair.status().synced && pair.status_at_b().synced);
    pair.b.put(2, id, "more", 1);
    pair.work();
    assert!(pair.status().synced && pair.status_at_b().synced);
    pair.a.put(1, id, "mine", 1);
    pair.work();
    assert!(!pair.status().synced);
    pair.wait_until(pair.at + 61_000);
    assert!(!pair.status().synced && !pair.status_at_b().synced, "found by the next comparison");
}

#[test]
fn b30_pull_only_serves_who_asks_and_no_longer_than_that() {
    for subscribed in [true, false] {
        let mut pair = Pair::new();
        let id = pair.a.replica(1, &key(7), 3);
        pair.b.replica(2, &key(7), 5);
        pair.tell(Input::SetDirection { replica: id, direction: Direction::Pull });
        pair.b.tell(now(pair.at), Input::AddPeer { peer: peer(1), addresses: vec!["hand:a".parse().unwrap()] });
        if subscribed {
            pair.b.tell(now(pair.at), Input::Subscribe { replica: id, peer: peer(1) });
            pair.work();
            assert_eq!(pair.b.count(id), RIGHTS + 5, "a subscription is no question");
        }
        let (target, timeout) = (Target::Peer(peer(1)), Duration::from_secs(5));
        pair.b.tell(now(pair.at), Input::Sync { ask: AskId(1), replica: id, target, timeout });
        pair.work();
        assert_eq!(counts(&pair, id), (RIGHTS + 8, RIGHTS + 8));
        let answer = pair.b.said.iter().find(|said| said.starts_with("Answer")).unwrap();
        assert!(answer.contains("outcome: Synced"), "{answer}");
        assert!(pair.status_at_b().synced);
        pair.a.put(1, id, "later", 3);
        pair.work();
        assert_eq!(pair.b.count(id), RIGHTS + 8, "what came later was not asked for");
        assert!(!pair.status().synced);
    }
}

/// Roots that differ are no reason to repair anything where entries go one way, so what a reconciliation leaves out must
/// come all the same, and no position may say that it has come before.
#[test]
fn one_way_nothing_is_left_out_when_more_differs_than_a_reconciliation_can_say() {
    let small = |round_claims| Limits { round_claims, claims: 2, symbols: 0, nearly_empty: 0, ..Limits::default() };
    for (direction, round_claims) in
        [(Direction::Pull, 4), (Direction::Pull, 40), (Direction::Push, 4), (Direction::Push, 40)]
    {
        for a_leads in [false, true] {
            let mut pair = Pair::with_limits(small(round_claims));
            let (mine, theirs) = if direction == Direction::Pull { (30, 900) } else { (900, 30) };
            let id = pair.a.replica(1, &key(7), mine);
            pair.b.replica(2, &key(7), theirs);
            pair.tell(Input::SetDirection { replica: id, direction });
            match a_leads {
                // Who was asked for a session leads.
                true => {
                    let addresses = vec!["hand:a".parse().unwrap()];
                    pair.b.tell(now(pair.at), Input::AddPeer { peer: peer(1), addresses });
                    pair.b.tell(now(pair.at), Input::Subscribe { replica: id, peer: peer(1) });
                    pair.work();
                }
                false => pair.subscribe(id),
            }
            pair.wait_until(pair.at + 60_000);
            let taker = |pair: &Pair| if direction == Direction::Pull { pair.a.count(id) } else { pair.b.count(id) };
            assert_eq!(taker(&pair), RIGHTS + 930, "{direction:?}, {round_claims}, {a_leads}");
            // Its position is there now: what comes later comes alone.
            pair.cut();
            let giver = if direction == Direction::Pull { 2 } else { 1 };
            pair.node(giver).put(giver, id, "more", 5);
            let sent = |pair: &Pair| pair.status().traffic.sent + pair.status_at_b().traffic.sent;
            let before = sent(&pair);
            pair.wait_until(pair.at + 60_000);
            assert_eq!((taker(&pair), sent(&pair) - before), (RIGHTS + 935, 5));
        }
    }
}

#[test]
fn b30_push_only_downloads_no_data() {
    for (mine, theirs) in [(3, 5), (40, 30)] {
        let (mut pair, id) = pair(Direction::Push, (mine, theirs));
        let (mine, theirs) = (u64::from(mine), u64::from(theirs));
        assert_eq!(counts(&pair, id), (RIGHTS + mine, RIGHTS + mine + theirs));
        pair.b.put(2, id, "more of b", 4);
        pair.a.put(1, id, "more of a", 4);
        pair.work();
        assert_eq!(counts(&pair, id), (RIGHTS + mine + 4, RIGHTS + mine + theirs + 8));
        let status = pair.status();
        assert_eq!((status.synced, status.pending, status.traffic.received), (false, 0, 0));
        assert_eq!(pair.status_at_b().pending, 0, "who does not want it is owed nothing");
    }
}

#[test]
fn b30_a_change_at_run_time_sends_the_backlog_once() {
    let (mut pair, id) = pair(Direction::Both, (40, 30));
    assert!(pair.status().synced);
    let sent = pair.status().traffic.sent;
    pair.tell(Input::SetDirection { replica: id, direction: Direction::Pull });
    pair.a.put(1, id, "backlog", 20);
    pair.b.put(2, id, "of b", 10);
    pair.work();
    assert_eq!(counts(&pair, id), (RIGHTS + 100, RIGHTS + 80));
    assert_eq!(pair.status().pending, 0);
    pair.tell(Input::SetDirection { replica: id, direction: Direction::Both });
    assert_eq!(counts(&pair, id), (RIGHTS + 100, RIGHTS + 100));
    assert!(pair.status().synced && pair.status_at_b().synced);
    for direction in [Direction::Push, Direction::Both, Direction::Pull, Direction::Both, Direction::Both] {
        pair.tell(Input::SetDirection { replica: id, direction });
    }
    let moved = pair.status().traffic;
    assert_eq!(moved.sent - sent, 20, "once");
    pair.tell(Input::SetDirection { replica: id, direction: Direction::Push });
    pair.b.put(2, id, "while a pushes", 7);
    pair.work();
    assert_eq!(counts(&pair, id), (RIGHTS + 100, RIGHTS + 107));
    pair.tell(Input::SetDirection { replica: id, direction: Direction::Both });
    assert_eq!(counts(&pair, id), (RIGHTS + 107, RIGHTS + 107));
    assert_eq!(pair.status().traffic.received - moved.received, 7);
}

#[test]
fn b30_where_nothing_may_flow_the_session_stays_and_says_nothing() {
    let (mut pair, id) = pair(Direction::Push, (3, 5));
    pair.b.tell(now(pair.at), Input::SetDirection { replica: id, direction: Direction::Push });
    pair.work();
    pair.a.put(1, id, "new", 1);
    pair.work();
    assert_eq!(counts(&pair, id), (RIGHTS + 4, RIGHTS + 8));
    assert_eq!(pair.status().state, PeerState::Live);
    pair.wait_until(pair.at + 300_000);
    assert_eq!((pair.status().state, pair.opened()), (PeerState::Live, 1), "pings and marks pass");
}

/// It ended in a timeout, though everything had gone that was ever to go.
#[test]
fn b30_a_question_where_entries_go_one_way_is_answered_when_all_has_gone() {
    for (direction, counted) in
        [(Direction::Pull, (RIGHTS + 70, RIGHTS + 30)), (Direction::Push, (RIGHTS + 40, RIGHTS + 70))]
    {
        let (mut pair, id) = pair(direction, (40, 30));
        let ask = |pair: &mut Pair, number: u64| {
            let (target, timeout) = (Target::Peer(peer(2)), Duration::from_secs(5));
            let before = pair.a.said.len();
            pair.a.tell(now(pair.at), Input::Sync { ask: AskId(number), replica: id, target, timeout });
            assert!(!pair.a.said[before..].iter().any(|said| said.starts_with("Answer")), "the peer is asked first");
            pair.work();
            let answer = pair.a.said[before..].iter().find(|said| said.starts_with("Answer"));
            assert!(answer.is_some_and(|answer| answer.contains("outcome: OneWay")), "{direction:?}: {answer:?}");
        };
        ask(&mut pair, 1);
        assert_eq!(counts(&pair, id), counted, "{direction:?}");
        // Again, with something new on both sides.
        pair.a.put(1, id, "of a", 4);
        pair.b.put(2, id, "of b", 6);
        ask(&mut pair, 2);
        let (of_a, of_b) = counts(&pair, id);
        assert_eq!((of_a + of_b) - (counted.0 + counted.1), 4 + 6 + if direction == Direction::Pull { 6 } else { 4 });
        // Nothing is called synced by it.
        assert!(!pair.status().synced && !pair.status_at_b().synced);
    }
}

#[test]
fn b30_who_only_pulls_and_may_read_more_than_before_gets_what_is_older_too() {
    let mut pair = Pair::new();
    let id = pair.a.replica_with(1, &key(7), 40, "1 1");
    pair.b.replica_with(2, &key(7), 0, "1 1");
    pair.b.tell(now(pair.at), Input::SetDirection { replica: id, direction: Direction::Pull });
    pair.subscribe(id);
    assert_eq!(pair.b.count(id), RIGHTS + 11, "1 1 and 1 10 to 1 19");
    pair.a.grant_everybody(&key(7));
    pair.work();
    pair.wait_until(pair.at + 10_000);
    assert_eq!(pair.b.count(id), RIGHTS + 1 + 40);
}
