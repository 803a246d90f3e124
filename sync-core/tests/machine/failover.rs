//! Connections that are cut while much is under way.

use super::common::*;

#[test]
fn b12_what_had_arrived_when_the_connection_was_cut_is_not_sent_again() {
    // Steps of the first sync after which the connection is cut; whoever has something to do may do it first.
    for (seed, source_dials) in [(1, true), (2, false)] {
        for cut_after in [40, 110] {
            let mut pair = Pair::new();
            let values = 2600;
            let (source, sink) = if source_dials { (1, 2) } else { (2, 1) };
            let id = pair.node(source).large_replica(source, &key(7), values);
            pair.node(sink).replica(sink, &key(7), 0);
            pair.work();
            pair.turns = Some(seed * 1_000_003);
            pair.subscribe_only(id);
            for _ in 0..cut_after {
                assert!(pair.step());
            }
            let here = pair.node(sink).count(id);
            assert!(here < 2602, "cut too late: {here}");
            pair.cut();
            pair.work();
            assert_eq!(counts(&mut pair, id), (2602, 2602), "seed {seed}, cut after {cut_after}");
            let (sent, received) = if source_dials {
                (pair.status().traffic.sent, pair.status_at_b().traffic.received)
            } else {
                (pair.status_at_b().traffic.sent, pair.status().traffic.received)
            };
            assert_eq!(received, 2600);
            assert!(sent <= 2600 + 130, "{sent} entries sent, seed {seed}, cut after {cut_after}, {here} were there");
        }
    }
}

#[test]
fn b12_what_is_too_much_for_a_connection_in_one_frame_passes_in_smaller_ones() {
    for source in [1, 2] {
        let mut pair = Pair::new();
        let id = pair.node(source).large_replica(source, &key(7), 700);
        pair.node(3 - source).replica(3 - source, &key(7), 0);
        // Others of which nothing is to be sent have no say.
        for other in [6, 8] {
            let other = [1, 2].map(|n| pair.node(n).replica(n, &key(other), 0))[0];
            pair.subscribe_only(other);
        }
        pair.work();
        pair.carries = 100_000;
        pair.subscribe(id);
        assert!(pair.node(3 - source).count(id) < 100, "a frame is longer than what a connection carries");
        pair.wait_until(4 * 3_600_000);
        assert_eq!(counts(&mut pair, id), (702, 702), "from {source}");
        // All that a connection carries is lost with it when it is not durable yet, and the search for what is missing costs too.
        let status = if source == 1 { pair.status() } else { pair.status_at_b() };
        let sent = status.traffic.sent;
        assert!(sent < 5 * 702, "{sent} entries sent in {} sessions", pair.opened());
    }
}

fn counts(pair: &mut Pair, id: sync_core::model::ReplicaId) -> (u64, u64) {
    (pair.a.count(id), pair.b.count(id))
}

#[test]
fn b12_a_session_waits_for_what_the_last_one_left_and_no_longer() {
    // The peer has sent, its connection is cut, and it is back before the store has taken in what it sent.
    let mut pair = Pair::new();
    let id = pair.b.large_replica(2, &key(7), 300);
    pair.a.replica(1, &key(7), 0);
    pair.work();
    pair.subscribe_only(id);
    // B goes first: A has received a frame, and its store has done nothing yet.
    while !pair.a.to_do.iter().any(|output| format!("{output:?}").contains("Verify")) {
        assert!(pair.step());
    }
    let waiting: Vec<_> = pair.a.to_do.drain(..).collect();
    pair.cut();
    pair.work();
    assert_eq!(pair.opened(), 1, "the next session has not been opened yet");
    pair.a.to_do.extend(waiting);
    pair.work();
    assert_eq!((pair.opened(), pair.status().synced), (2, true));
    assert_eq!(pair.status_at_b().traffic.sent, 302, "every entry once, the rights among them");
}
