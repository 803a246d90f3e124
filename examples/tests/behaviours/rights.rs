//! Tickets, strangers, readers; and secrets that stay secret.

use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use sync_core::{
    machine::{Event, SyncOutcome},
    manager::{Access, ManagerError},
    model::{ReplicaId, Right, SecretKey, Ticket, Timestamp},
};

use crate::common::*;

on_every_wire! {
    b59_a_ticket_to_read_reads_and_a_ticket_to_write_writes
    b61_a_stranger_gets_nothing_and_learns_nothing
}

async fn b59_a_ticket_to_read_reads_and_a_ticket_to_write_writes(world: World) {
    let (a, b, c) = (world.node("a").await, world.node("b").await, world.node("c").await);
    let left = a.create_replica().await.unwrap();
    left.put("k", "v").await.unwrap();
    let reader = join(&left, &b, Access::READ).await;
    let writer = join(&left, &c, Access::WRITE).await;
    assert_eq!(value(&reader, "k").await.unwrap(), b"v");
    let refused = reader.put("mine", "x").await.unwrap_err();
    assert!(matches!(refused, ManagerError::NotPermitted { .. }) && refused.to_string().contains("--write"));
    assert!(reader.get("mine").await.unwrap().is_none());
    writer.put("mine", "x").await.unwrap();
    reads(&left, "mine", "x").await;
    reads(&reader, "mine", "x").await;
    // Nobody shares more than he has.
    assert!(matches!(reader.share(Access::WRITE).await, Err(ManagerError::CannotShare(_))));
    let onward = reader.share(Access::READ).await.unwrap();
    let d = world.node("d").await;
    let fourth = d.join(onward.to_string().parse().unwrap()).await.unwrap();
    d.wait_synced(fourth.id(), b.node_id(), LONG).await.unwrap();
    assert_eq!(value(&fourth, "mine").await.unwrap(), b"x");
}

#[tokio::test]
async fn b59_an_expired_cut_foreign_or_empty_ticket_changes_nothing() {
    let world = World::new(Wire::Memory, Keep::Memory);
    let (a, b) = (world.node("a").await, world.node("b").await);
    let left = a.create_replica().await.unwrap();
    let expired = Access { right: Right::Write, expires: Some(Timestamp(1)) };
    let ticket = left.share(expired).await.unwrap();
    assert!(matches!(b.join(ticket).await, Err(ManagerError::TicketExpired)));
    let text = left.share(Access::READ).await.unwrap().to_string();
    assert!(text[..text.len() / 2].parse::<Ticket>().is_err());
    assert!("https://example.org".parse::<Ticket>().is_err());
    let mut asking = left.share(Access::READ).await.unwrap();
    asking.invite = None;
    assert!(matches!(b.join(asking).await, Err(ManagerError::TicketWithoutInvite)));
    // The chain of another replica gives nothing here.
    let other = a.create_replica().await.unwrap();
    let mut spliced = left.share(Access::READ).await.unwrap();
    spliced.replica = other.id();
    assert!(matches!(b.join(spliced).await, Err(ManagerError::TicketInvalid(_))));
    // Nor does another secret with a good chain.
    let mut stolen = left.share(Access::READ).await.unwrap();
    stolen.invite.as_mut().unwrap().secret = SecretKey::generate();
    assert!(matches!(b.join(stolen).await, Err(ManagerError::TicketInvalid(_))));
    assert!(b.replicas().await.unwrap().is_empty());
    assert!(b.peers().await.unwrap().is_empty());
}

async fn b61_a_stranger_gets_nothing_and_learns_nothing(world: World) {
    let (a, c) = (world.node("a").await, world.node("c").await);
    let left = a.create_replica().await.unwrap();
    fill(&left, "secret ", 50).await;
    let root = left.state().await.unwrap().root;
    let address = a.addresses().await.unwrap()[0].clone();
    let absent = ReplicaId(SecretKey::generate().public());
    let mut answers = Vec::new();
    for id in [left.id(), absent] {
        c.store().create_replica(id, vec![]).await.unwrap();
        let stranger = c.open_replica(id).await.unwrap();
        let report = c.sync_with(address.clone(), id, LONG).await.unwrap();
        assert!(matches!(report.outcome, SyncOutcome::Refused(_)), "{report:?}");
        assert_eq!(stranger.state().await.unwrap().root.count, 0);
        let why = c.why().await.unwrap();
        assert!(why.iter().any(|obstacle| obstacle.subject.contains(&id.short())), "{why:?}");
        answers.push((report.outcome, report.traffic));
    }
    // b62: what is forbidden and what is not there look alike, to the byte.
    assert_eq!(answers[0], answers[1]);
    // Nothing was recorded of it but the acquaintance.
    assert_eq!(left.state().await.unwrap().root, root);
    assert_eq!(a.replicas().await.unwrap(), [left.id()]);
    let status = a.status().await.unwrap();
    assert!(status.replicas[0].peers.is_empty(), "{status:?}");
}

#[tokio::test]
async fn b61_a_right_that_ends_ends_an_open_session() {
    let world = World::new(Wire::Quic, Keep::Memory);
    let (a, b) = (world.node("a").await, world.node("b").await);
    let left = a.create_replica().await.unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let expires = Timestamp(now.as_micros() as u64).plus(Duration::from_secs(12));
    let right = join(&left, &b, Access { right: Right::Read, expires: Some(expires) }).await;
    let mut events = a.events();
    left.put("before", "1").await.unwrap();
    reads(&right, "before", "1").await;
    // The session was cut: whatever goes on between the two is another one, without a word of ours.
    let anew = |event: &Event| matches!(event, Event::SyncStarted { .. } | Event::SyncFailed { .. });
    event(&mut events, "the session ends with the right", anew).await;
    left.put("after", "2").await.unwrap();
    let report = b.sync_with(a.node_id(), right.id(), Duration::from_secs(2)).await.unwrap();
    assert!(report.outcome != SyncOutcome::Synced, "{report:?}");
    assert_eq!(report.traffic.received, 0);
    assert_eq!(value(&right, "after").await, None);
}

#[tokio::test]
async fn b81_no_secret_shows_in_debug_status_events_or_errors() {
    let world = World::new(Wire::Quic, Keep::Redb);
    let Pair { a, b, left, right } = pair(&world).await;
    let mut events = a.events();
    let author = a.create_author().await.unwrap();
    let ticket = left.share(Access::WRITE).await.unwrap();
    left.put("k", "v").await.unwrap();
    let mut shown = format!("{a:?} {left:?} {ticket:?} {:?} {:?}", left.write(), left.watch("", left.head()));
    shown += &format!("{:?} {:?} {:?}", a.status().await, a.why().await, a.peers().await);
    shown += &format!("{:?} {:?} {:?}", a.store(), a.transports().await, past(&mut events));
    shown += &format!("{:?}", right.share(Access { right: Right::Admin, expires: None }).await);
    for kind in [sync_core::store::NodeKind::Key, sync_core::store::NodeKind::Transport] {
        shown += &format!("{:?}", a.store().node_records(kind).await);
    }
    let shown = shown.to_lowercase();
    let keys = [a.default_author(), author];
    let mut secrets = vec![ticket.invite.unwrap().secret];
    for key in keys {
        secrets.push(a.export_author(key).await.unwrap());
    }
    for secret in secrets {
        shown_nowhere(&shown, &secret);
        shown_nowhere(&format!("{secret:?}"), &secret);
    }
    drop(b);
}

/// Where a log goes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn b81_no_secret_shows_in_the_most_talkative_log() {
    use tracing_subscriber::util::SubscriberInitExt;
    let log = Log::default();
    let writer = log.clone();
    let talkative =
        tracing_subscriber::fmt().with_env_filter("trace").with_writer(move || writer.clone()).set_default();
    let world = World::new(Wire::Memory, Keep::Redb);
    let (a, b) = (world.node_on("a", &Wire::ALL).await, world.node_on("b", &Wire::ALL).await);
    let left = a.create_replica().await.unwrap();
    let ticket = left.share(Access::WRITE).await.unwrap();
    let invite = ticket.invite.as_ref().unwrap().secret.clone();
    let right = b.join(ticket).await.unwrap();
    b.wait_synced(right.id(), a.node_id(), LONG).await.unwrap();
    for address in a.addresses().await.unwrap() {
        b.sync_with(address, right.id(), LONG).await.unwrap();
    }
    right.put("k", vec![7; 20_000]).await.unwrap();
    equal(&[&left, &right]).await;
    a.block_peer(b.node_id()).await.unwrap();
    let mut secrets = vec![invite];
    for node in [&a, &b] {
        secrets.push(node.export_author(node.default_author()).await.unwrap());
        for record in node.store().node_records(sync_core::store::NodeKind::Key).await.unwrap() {
            let bytes: [u8; 32] = record.value.unwrap()[..].try_into().unwrap();
            secrets.push(SecretKey::from_bytes(bytes));
        }
    }
    assert!(secrets.len() >= 6, "the invite, both nodes' keys and the owner's: {}", secrets.len());
    for node in [a, b] {
        node.shutdown(LONG).await.unwrap();
    }
    drop(talkative);
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).to_lowercase();
    assert!(log.contains("trace") && log.len() > 10_000, "{} bytes were logged", log.len());
    for secret in secrets {
        shown_nowhere(&log, &secret);
    }
}

fn shown_nowhere(text: &str, secret: &SecretKey) {
    let hex: String = secret.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{:?}", secret.to_bytes());
    assert!(!text.contains(&hex[..16]) && !text.contains(list.trim_matches(['[', ']'])), "a secret shows");
}
