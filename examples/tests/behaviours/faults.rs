//! What cables, routers and laptop lids do to two real nodes on their disks, over each transport that has packets or
//! connections to lose: a proxy between them does it, at moments that follow from a seed and are counted in bytes.
//!
//! `FAULTS_SEED` says which seed (default 1).

use sync_core::{
    machine::Event,
    manager::{Replica, SyncManager},
    model::PeerId,
    testing::{
        proxy::{Faults, Way},
        random::Random,
    },
};
use tokio::sync::broadcast;

use crate::{
    common::*,
    proxied::{Bridge, Proxy},
    sync::churn,
};

on_every_real_wire! {
    b11_each_way_that_falls_silent_is_noticed_and_nothing_written_meanwhile_is_lost
    b24_a_blackhole_in_the_middle_of_a_first_sync_is_a_pause
    b21_what_is_lost_doubled_and_overtaken_changes_nothing
}

fn seed() -> u64 {
    let seed = std::env::var("FAULTS_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("FAULTS_SEED={seed} plays it again");
    seed
}

/// Waits until a link is found dead. Its deadlines are half a minute and less.
async fn down(events: &mut broadcast::Receiver<Event>, peer: PeerId, who: &str) {
    let is_down = |event: &Event| matches!(event, Event::PeerDown { peer: gone } if *gone == peer);
    event(events, &format!("{who} finds the link dead"), is_down).await;
}

async fn b11_each_way_that_falls_silent_is_noticed_and_nothing_written_meanwhile_is_lost(world: World) {
    let seed = seed();
    let faults = Faults { seed, loss_percent: 1, ..Faults::default() };
    let Some(bridge) = Bridge::new(&world, faults).await else { return };
    let Bridge { proxy, a, b, .. } = &bridge;
    let left = a.create_replica().await.unwrap();
    let right = bridge.joined(&left).await;
    let mut told = [a.events(), b.events()];
    let mut ways = [Way::There, Way::Back];
    Random::new(seed).shuffle(&mut ways);
    for open in ways {
        let (mut of_a, mut of_b) = (a.events(), b.events());
        proxy.half_open(open);
        fill(&left, &format!("left {open:?} "), 50).await;
        fill(&right, &format!("right {open:?} "), 50).await;
        tokio::join!(down(&mut of_a, b.node_id(), "a"), down(&mut of_b, a.node_id(), "b"));
        let (deaf, written) = match open {
            Way::There => (&right, "left"),
            Way::Back => (&left, "right"),
        };
        assert_eq!(value(deaf, &format!("{written} {open:?} 00000")).await, None, "nothing passes that way");
        proxy.thaw();
        equal(&[&left, &right]).await;
    }
    for (replica, side, open) in [
        (&right, "left", Way::There),
        (&right, "left", Way::Back),
        (&left, "right", Way::There),
        (&left, "right", Way::Back),
    ] {
        for n in 0..50 {
            let key = format!("{side} {open:?} {n:05}");
            assert_eq!(value(replica, &key).await, Some(format!("value of {side} {open:?} {n}").into_bytes()), "{key}");
        }
    }
    for ((node, peer), told) in [(a, b), (b, a)].into_iter().zip(&mut told) {
        node.flush(LONG).await.unwrap();
        // Once into the silence, and once more; and again when a busy machine has lost another link.
        let lost = downs(told);
        let sent = peer_status(node, left.id(), peer.node_id()).await.unwrap().traffic.sent;
        assert!(sent <= lost.max(2) * left.state().await.unwrap().root.count, "{sent} sent, {lost} links lost");
    }
}

/// How often the peer was lost that these events have not told yet.
fn downs(events: &mut broadcast::Receiver<Event>) -> u64 {
    past(events).iter().filter(|event| matches!(event, Event::PeerDown { .. })).count() as u64
}

/// The size of a value, and how many there are: a first sync of 10 MB.
const VALUE_LEN: usize = 4096;
const ENTRIES: u64 = 2_600;

async fn fill_10_mb(replica: &Replica) {
    for batch in 0..ENTRIES / 100 {
        let mut transaction = replica.write();
        for n in 0..100 {
            transaction.put(format!("{batch:02}/{n:03}"), vec![batch as u8; VALUE_LEN]).await.unwrap();
        }
        transaction.commit().await.unwrap();
    }
}

/// All of the 10 MB is there, and each cut has cost a twentieth at most: those that were made, and those after them
/// that a busy machine has added, of which the events of `b` tell.
async fn is_whole(
    (a, left): (&SyncManager, &Replica),
    (b, right): (&SyncManager, &Replica),
    cuts: u64,
    events: &mut broadcast::Receiver<Event>,
) {
    b.wait_synced(right.id(), a.node_id(), LONG).await.unwrap();
    equal(&[left, right]).await;
    for batch in 0..ENTRIES / 100 {
        for n in 0..100 {
            let key = format!("{batch:02}/{n:03}");
            assert!(value(right, &key).await == Some(vec![batch as u8; VALUE_LEN]), "{key}");
        }
    }
    let cuts = cuts + downs(events);
    let sent = peer_status(a, left.id(), b.node_id()).await.unwrap().traffic.sent;
    let total = left.state().await.unwrap().root.count;
    assert!(sent <= total + cuts * total / 20, "{sent} entries sent for {total}, {cuts} cuts");
}

async fn b24_a_blackhole_in_the_middle_of_a_first_sync_is_a_pause(world: World) {
    let seed = seed();
    let Some(bridge) = Bridge::new(&world, Faults { seed, ..Faults::default() }).await else { return };
    let Bridge { proxy, a, b, .. } = &bridge;
    let left = a.create_replica().await.unwrap();
    fill_10_mb(&left).await;
    let mut events = b.events();
    proxy.freeze_at(2_000_000 + Random::new(seed).below(6_000_000) as u64);
    let right = bridge.join(&left).await;
    soon("it is in the middle", proxy.interrupted()).await;
    down(&mut events, a.node_id(), "b").await;
    let here = right.state().await.unwrap().root.count;
    assert!((1..ENTRIES).contains(&here), "it was not in the middle: {here}");
    proxy.thaw();
    is_whole((a, &left), (b, &right), 1, &mut events).await;
}

#[tokio::test]
async fn b24_http_whose_connections_are_cut_goes_on_where_it_was() {
    const CUTS: u64 = 3;
    let (seed, world) = (seed(), World::new(Wire::Http, Keep::Redb));
    let Some(bridge) = Bridge::new(&world, Faults { seed, ..Faults::default() }).await else { return };
    let Bridge { proxy: Proxy::Tcp(proxy), a, b, .. } = &bridge else { panic!("HTTP is over TCP") };
    let left = a.create_replica().await.unwrap();
    fill_10_mb(&left).await;
    let (mut random, mut events) = (Random::new(seed), b.events());
    let mut next = || 1_000_000 + random.below(2_000_000) as u64;
    proxy.cut_at(next());
    let right = bridge.join(&left).await;
    for cut in 1..=CUTS {
        soon("it is in the middle", proxy.interrupted()).await;
        down(&mut events, a.node_id(), "b").await;
        let here = right.state().await.unwrap().root.count;
        assert!((1..ENTRIES).contains(&here), "it was not in the middle: {here}");
        if cut < CUTS {
            proxy.cut_at(next());
        }
        proxy.thaw();
    }
    is_whole((a, &left), (b, &right), CUTS, &mut events).await;
}

async fn b21_what_is_lost_doubled_and_overtaken_changes_nothing(world: World) {
    let seed = seed();
    let faults = Faults {
        seed,
        delay: std::time::Duration::from_millis(5),
        loss_percent: 5,
        duplicate_percent: 20,
        reorder_percent: 30,
        // What a stream has of it.
        cut_after: Some(100_000),
    };
    let Some(bridge) = Bridge::new(&world, faults).await else { return };
    let mut events = bridge.b.events();
    let left = bridge.a.create_replica().await.unwrap();
    fill(&left, "first ", 300).await;
    if let Proxy::Tcp(proxy) = &bridge.proxy {
        // In the middle of the first sync, whatever the seed.
        proxy.cut_at(8_000);
    }
    let right = bridge.join(&left).await;
    if let Proxy::Tcp(proxy) = &bridge.proxy {
        soon("it is in the middle", proxy.interrupted()).await;
        down(&mut events, bridge.a.node_id(), "b").await;
        proxy.thaw();
    }
    bridge.b.wait_synced(right.id(), bridge.a.node_id(), LONG).await.unwrap();
    churn(&[(bridge.a.clone(), left), (bridge.b.clone(), right)], seed).await;
}
