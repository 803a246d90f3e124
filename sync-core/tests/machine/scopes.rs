//! A peer that may read a part of a replica.

use sync_core::{
    machine::{Direction, Input},
    model::ReplicaId,
};

use super::common::*;

/// A has values "1 0" to "1 39"; B may read those under "1 1".
fn reader_of_a_part() -> (Pair, ReplicaId) {
    let mut pair = Pair::new();
    let id = pair.a.replica_with(1, &key(7), 40, "1 1");
    pair.b.replica_with(2, &key(7), 0, "1 1");
    pair.subscribe(id);
    (pair, id)
}

#[test]
fn b29_a_reader_of_a_part_is_synced_live_and_honestly() {
    let (mut pair, id) = reader_of_a_part();
    let rights = 2;
    assert_eq!(pair.b.count(id), rights + 11, "1 1 and 1 10 to 1 19");
    assert!(pair.status().synced && pair.status_at_b().synced);
    for (name, inside) in [("1 1 more", 3), ("1 2 more", 0), ("1 1 again", 3)] {
        let before = pair.b.count(id);
        pair.a.put(1, id, name, 3);
        assert!(!pair.status().synced, "not before the peer has said so");
        pair.work();
        assert_eq!(pair.b.count(id), before + inside);
        assert!(pair.status().synced && pair.status_at_b().synced, "{name}");
        assert_eq!(pair.status().pending, 0);
    }
    // What the reader has beside its part keeps the roots apart, and costs nothing but that.
    let sent = pair.status_at_b().traffic.messages;
    pair.b.put(7, id, "1 3 of its own", 1);
    pair.work();
    pair.wait_until(pair.at + 300_000);
    assert!(!pair.status().synced && !pair.status_at_b().synced);
    assert!(pair.status_at_b().traffic.messages - sent < 60, "{:?}", pair.status_at_b().traffic);
}

/// Roots that differ are no reason to repair anything where entries go one way, so the position must not say too much.
#[test]
fn who_only_pulls_and_may_read_more_gets_what_is_older_than_its_position() {
    for seed in 0..60 {
        let mut pair = Pair::new();
        let id = pair.a.replica_with(1, &key(7), 400, "1 1");
        pair.b.replica_with(2, &key(7), 0, "1 1");
        // Or it only pulls as soon as the right has come, whatever it has by then.
        let pulls_later = seed % 4 == 1;
        let pull = Input::SetDirection { replica: id, direction: Direction::Pull };
        if !pulls_later {
            pair.b.tell(now(5), pull.clone());
        }
        pair.subscribe(id);
        assert_eq!(pair.b.count(id), 2 + 111, "the rights; 1 1, and 1 10 to 1 199");
        // Entries are on their way when the right comes; in each order that two machines can take their turns in.
        pair.turns = Some(seed);
        pair.a.put(1, id, "1 1 more", 30);
        for _ in 0..seed {
            pair.step();
        }
        let is_cut = seed % 3 == 0;
        if is_cut {
            pair.cut();
        }
        pair.a.grant_reading(&key(7), peer(2).0, "1 2");
        for _ in 0..seed {
            pair.step();
        }
        if seed % 5 == 0 {
            pair.cut();
        }
        if pulls_later {
            pair.b.tell(now(pair.at), pull);
        }
        pair.work();
        pair.wait_until(pair.at + 120_000);
        assert_eq!(pair.b.count(id), 2 + 111 + 30 + 1 + 111, "seed {seed}: 1 2, and 1 20 to 1 299");
        // Once: what came by that is not asked for again.
        let received = pair.status_at_b().traffic.received;
        pair.a.put(1, id, "1 2 more", 3);
        pair.work();
        assert_eq!(pair.status_at_b().traffic.received - received, 3);
        pair.cut();
        pair.wait_until(pair.at + 120_000);
        assert_eq!(pair.status_at_b().traffic.received - received, 3);
    }
}

/// A session can read from the store what the machine has not heard of yet, by the right of before.
#[test]
fn who_only_pulls_gets_what_is_older_than_a_grant_that_the_machine_hears_of_late() {
    for steps in 0..40 {
        let mut pair = Pair::new();
        let id = pair.a.replica_with(1, &key(7), 400, "1 1");
        pair.b.replica_with(2, &key(7), 0, "1 1");
        pair.b.tell(now(5), Input::SetDirection { replica: id, direction: Direction::Pull });
        pair.subscribe(id);
        pair.a.put(1, id, "1 1 more", 3);
        let granted = pair.a.write_grant(&key(7), peer(2).0, "1 2");
        for _ in 0..steps {
            pair.step();
        }
        pair.a.tell(now(pair.at), Input::Changed { replica: id, state: granted, written: None });
        pair.work();
        pair.wait_until(pair.at + 120_000);
        assert_eq!(pair.b.count(id), 2 + 111 + 3 + 1 + 111, "{steps}");
    }
}

/// A connection that does not live long enough for the whole log must not make it begin from the beginning for ever.
#[test]
fn who_may_read_more_gets_on_over_connections_that_are_cut() {
    for direction in [Direction::Pull, Direction::Both] {
        let mut pair = Pair::new();
        let id = pair.a.replica_with(1, &key(7), 400, "1 1");
        pair.b.replica_with(2, &key(7), 0, "1 1");
        pair.b.tell(now(5), Input::SetDirection { replica: id, direction });
        pair.subscribe(id);
        pair.carries = 12_000;
        pair.a.grant_reading(&key(7), peer(2).0, "1");
        pair.work();
        pair.wait_until(pair.at + 600_000);
        assert_eq!(pair.b.count(id), 2 + 1 + 400, "{direction:?}");
        // Its position is one of now: what comes later comes alone.
        pair.carries = usize::MAX;
        pair.cut();
        let sent = pair.status().traffic.sent;
        pair.a.put(1, id, "1 3 more", 5);
        pair.wait_until(pair.at + 60_000);
        assert_eq!((pair.b.count(id), pair.status().traffic.sent - sent), (2 + 1 + 405, 5), "{direction:?}");
    }
}

/// What it had by the right of before comes again, and makes its log no longer: that it has confirmed it counts all the same.
#[test]
fn who_may_read_more_gets_on_behind_what_it_had_already() {
    // In many orders, so that acknowledgements come before the cut, too.
    for seed in 0..20 {
        let mut pair = Pair::new();
        let id = pair.a.replica_with(1, &key(7), 0, "1 1");
        pair.b.replica_with(2, &key(7), 0, "1 1");
        pair.b.tell(now(5), Input::SetDirection { replica: id, direction: Direction::Pull });
        pair.a.put(1, id, "1 1", 300);
        pair.a.put(1, id, "1 2", 300);
        pair.subscribe(id);
        assert_eq!(pair.b.count(id), 2 + 300);
        pair.turns = Some(seed);
        pair.carries = 12_000;
        pair.a.grant_reading(&key(7), peer(2).0, "1");
        pair.work();
        pair.wait_until(pair.at + 600_000);
        assert_eq!(pair.b.count(id), 2 + 300 + 1 + 300, "{seed}");
    }
}

/// A replica that is here again after it was dropped has another log: a position in the one of before says nothing of it.
#[test]
fn who_only_pulls_from_a_replica_that_was_dropped_and_is_here_again_gets_all_of_it() {
    let mut pair = Pair::new();
    let id = pair.a.replica(1, &key(7), 40);
    pair.b.replica(2, &key(7), 0);
    pair.b.tell(now(5), Input::SetDirection { replica: id, direction: Direction::Pull });
    pair.subscribe(id);
    assert_eq!(pair.b.count(id), 2 + 40);
    pair.tell(Input::Dropped { replica: id });
    block_on(pair.a.store.drop_replica(id, Vec::new())).unwrap();
    pair.a.replica(1, &key(7), 0);
    pair.a.put(1, id, "of since", 60);
    pair.subscribe(id);
    pair.wait_until(pair.at + 120_000);
    assert_eq!(pair.b.count(id), 2 + 40 + 60);
    assert_eq!(pair.status().pending, 0, "{:?}", pair.status());
}

/// What is read for an opening may not be read any more when its answer comes.
#[test]
fn b61_a_right_that_ends_while_a_session_is_opened_shows_nothing_more() {
    let mut pair = Pair::new();
    let id = pair.a.replica_with(1, &key(7), 40, "1 1");
    pair.b.replica_with(2, &key(7), 0, "1 1");
    let ends = 500;
    let granted = pair.a.write_grant_until(&key(7), peer(2).0, "1 2", Some(now(ends).wall));
    pair.a.tell(now(pair.at), Input::Changed { replica: id, state: granted, written: None });
    pair.subscribe_only(id);
    while pair.opened() == 0 {
        assert!(pair.step(), "a session is opened");
    }
    pair.at = ends + 1;
    pair.work();
    pair.wait_until(pair.at + 60_000);
    assert_eq!(pair.b.count(id), 2 + 1 + 11, "the rights; 1 1, and 1 10 to 1 19");
    pair.a.put(1, id, "1 2 more", 3);
    pair.a.put(1, id, "1 1 more", 3);
    pair.work();
    assert_eq!(pair.b.count(id), 2 + 1 + 11 + 3);
}

/// Whoever joins is granted it last: what it has of the log before that it has by this very grant.
#[test]
fn b12_a_grant_that_stands_behind_the_log_takes_no_position_away() {
    for direction in [Direction::Pull, Direction::Both] {
        let mut pair = Pair::new();
        let id = pair.a.replica_of_one(1, &key(7), 4_000);
        pair.b.replica_of_one(2, &key(7), 0);
        pair.b.tell(now(5), Input::SetDirection { replica: id, direction });
        pair.a.grant_reading(&key(7), peer(2).0, "");
        pair.carries = 300_000;
        pair.subscribe(id);
        let first = pair.b.count(id);
        assert!((50..3_900).contains(&first), "it was not cut in the middle: {first}");
        pair.carries = usize::MAX;
        let sent = pair.status().traffic.sent;
        pair.wait_until(pair.at + 60_000);
        assert_eq!(pair.b.count(id), 2 + 4_000, "{direction:?}");
        let again = first + pair.status().traffic.sent - sent - (2 + 4_000);
        assert!(again < 200, "{again} were sent twice, {direction:?}");
    }
}
