//! Which way entries go, through real nodes.

use sync_core::{
    machine::{Direction, SyncOutcome},
    manager::Access,
};

use crate::common::*;

mod b30_directions_hold_at_run_time_and_over_restarts {
    use crate::common::{Keep, Wire, World};

    #[tokio::test]
    async fn quic_on_redb() {
        super::b30_directions_hold_at_run_time_and_over_restarts(World::new(Wire::Quic, Keep::Redb)).await
    }

    #[tokio::test]
    async fn http_on_mem() {
        super::b30_directions_hold_at_run_time_and_over_restarts(World::new(Wire::Http, Keep::Memory)).await
    }
}

async fn b30_directions_hold_at_run_time_and_over_restarts(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    let (id, peer) = (left.id(), b.node_id());
    right.set_direction(Direction::Pull).await.unwrap();
    assert_eq!(right.direction().await.unwrap(), Direction::Pull);
    assert_eq!(b.status().await.unwrap().replicas[0].direction, Direction::Pull);
    fill(&right, "private ", 20).await;
    left.put("from a", "1").await.unwrap();
    reads(&right, "from a", "1").await;
    // Nothing of it is owed, and a restart does not forget.
    b.flush(LONG).await.unwrap();
    b.shutdown(LONG).await.unwrap();
    drop((b, right));
    let b = world.node("b").await;
    let right = b.open_replica(id).await.unwrap();
    left.put("from a", "2").await.unwrap();
    reads(&right, "from a", "2").await;
    assert_eq!(value(&left, "private 00000").await, None);
    // Its own question is answered when all has come that is to come.
    let report = b.sync_with(a.node_id(), id, LONG).await.unwrap();
    assert_eq!(report.outcome, SyncOutcome::OneWay);
    assert!(b.wait_synced(id, a.node_id(), LONG).await.unwrap_err().to_string().contains("only pulls"));
    // Who asks is served.
    let report = a.sync_with(peer, id, LONG).await.unwrap();
    assert_eq!(report.outcome, SyncOutcome::Synced);
    assert_eq!(report.traffic.received, 20);
    fill(&right, "later ", 5).await;
    left.put("from a", "3").await.unwrap();
    reads(&right, "from a", "3").await;
    assert_eq!(value(&left, "later 00000").await, None);
    // The backlog is sent once when the direction changes.
    let before = peer_status(&a, id, peer).await.unwrap().traffic.received;
    right.set_direction(Direction::Both).await.unwrap();
    reads(&left, "later 00004", "value of later 4").await;
    a.wait_synced(id, peer, LONG).await.unwrap();
    assert_eq!(peer_status(&a, id, peer).await.unwrap().traffic.received - before, 5);
    // Push only: what others have stays there.
    right.set_direction(Direction::Push).await.unwrap();
    left.put("kept", "at a").await.unwrap();
    right.put("pushed", "to a").await.unwrap();
    reads(&left, "pushed", "to a").await;
    assert_eq!(value(&right, "kept").await, None);
    // Another replica of the node is left alone.
    let other = a.create_replica().await.unwrap();
    let joined = join(&other, &b, Access::WRITE).await;
    assert_eq!(joined.direction().await.unwrap(), Direction::Both);
    fill(&joined, "both ", 3).await;
    equal(&[&other, &joined]).await;
}
