//! A peer that may read a part of a replica.

use sync_core::model::ReplicaId;

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
