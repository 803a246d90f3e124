//! How everything stands: status, why, peers, sync.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value as Json, json};
use sync_core::{
    machine::{ReplicaStatus, SyncOutcome, SyncReport, wire::Refusal},
    manager::{ManagerError, Status},
    model::ReplicaId,
};

use super::Node;
use crate::{error::Result, folder::plan::Mode};

/// A peer that takes contents asks for the next at once: when nothing went out for so long, it has what it wants.
const SERVED: Duration = Duration::from_secs(2);

/// The milliseconds until then; none when it is over.
fn in_ms(at: SystemTime) -> u64 {
    let left = at.duration_since(SystemTime::now()).unwrap_or_default();
    u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
}

impl Node {
    /// The one that was asked for, if one was.
    async fn only(&self, asked: Option<&str>) -> Result<Option<ReplicaId>> {
        match asked {
            Some(_) => Ok(Some(self.replica(asked).await?.id())),
            None => Ok(None),
        }
    }

    pub(super) async fn status(&self, replica: Option<&str>) -> Result<Json> {
        let only = self.only(replica).await?;
        let is_meant = |id: ReplicaId| only.is_none_or(|only| only == id);
        let mut status = self.manager.status().await?;
        status.replicas.retain(|replica| is_meant(replica.id));
        let mut document = serde_json::to_value(&status).expect("a status is JSON");
        let running = self.folders.lock().expect("nobody panics with the folders");
        let folders = running.iter().filter(|running| is_meant(running.replica)).map(|running| {
            json!({
                "path": running.path,
                "replica": running.replica.to_string(),
                "read_only": running.folder.mode() == Mode::ReadOnly,
                "problems": running.folder.problems().list().len(),
            })
        });
        document["folders"] = folders.collect();
        Ok(document)
    }

    pub(super) async fn why(&self, replica: Option<&str>) -> Result<Json> {
        let only = self.only(replica).await?;
        let mut obstacles = self.manager.why().await?;
        // What is about no replica is in the way of all.
        obstacles.retain(|obstacle| only.is_none() || obstacle.replica.is_none() || obstacle.replica == only);
        let mut documents: Vec<Json> =
            obstacles.iter().map(|obstacle| serde_json::to_value(obstacle).expect("an obstacle is JSON")).collect();
        let running = self.folders.lock().expect("nobody panics with the folders");
        let running = running.iter().filter(|running| only.is_none_or(|only| only == running.replica));
        for (replica, problem) in running.flat_map(|running| {
            running.folder.problems().list().into_iter().map(move |problem| (running.replica, problem))
        }) {
            let since = problem.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            documents.push(json!({
                "subject": problem.subject,
                "replica": replica.to_string(),
                "cause": problem.cause,
                "since": u64::try_from(since.as_micros()).unwrap_or(u64::MAX),
                "next_try": problem.next_try.map(in_ms),
                "advice": problem.advice,
            }));
        }
        Ok(json!({ "obstacles": documents }))
    }

    pub(super) async fn peers(&self, replica: Option<&str>) -> Result<Json> {
        let mut peers = self.manager.peers().await?;
        if let Some(only) = self.only(replica).await? {
            let status = self.manager.status().await?;
            let known: Vec<_> = status.replicas.iter().filter(|replica| replica.id == only).collect();
            peers.retain(|peer| known.iter().any(|replica| replica.peers.iter().any(|known| known.id == peer.id)));
        }
        Ok(json!({ "peers": serde_json::to_value(&peers).expect("peers are JSON") }))
    }

    pub(super) async fn sync(self: &Arc<Self>, replica: Option<&str>, timeout: Duration) -> Result<Json> {
        let replicas = match replica {
            Some(_) => vec![self.replica(replica).await?.id()],
            None => self.manager.replicas().await?,
        };
        if replicas.is_empty() {
            self.replica(None).await?;
        }
        let deadline = Instant::now() + timeout;
        let mut tasks = tokio::task::JoinSet::new();
        for &id in &replicas {
            let manager = self.manager.clone();
            tasks.spawn(async move { (id, manager.sync_all(id, timeout).await) });
        }
        let mut peers = Vec::new();
        while let Some(done) = tasks.join_next().await {
            let (id, reports) = done.expect("a sync does not panic");
            for report in reports? {
                let mut document = report_document(&report);
                document["replica"] = json!(id.to_string());
                peers.push(document);
            }
        }
        let missing = self.contents_moved(&replicas, !peers.is_empty(), deadline).await?;
        let synced = missing == 0 && peers.iter().all(|peer| peer["synced"] == json!(true));
        Ok(json!({ "synced": synced, "peers": peers, "blobs_missing": missing }))
    }

    /// Waits until the contents that entries refer to are here too, and until what peers want of this node has gone
    /// out. Answers how many are missing when the time is up.
    async fn contents_moved(&self, replicas: &[ReplicaId], has_peers: bool, deadline: Instant) -> Result<u64> {
        let left = || deadline.saturating_duration_since(Instant::now());
        let missing = |status: &Status| -> u64 {
            let meant = status.replicas.iter().filter(|replica| replicas.contains(&replica.id));
            meant.map(|replica| replica.blobs_missing).sum()
        };
        let wait = if has_peers { left() } else { Duration::ZERO };
        match self.manager.status_when(wait, |status| missing(status) == 0).await {
            Ok(_) | Err(ManagerError::TimedOut(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let status = self.manager.status().await?;
        // A daemon goes on serving; a command must not go away while somebody takes its contents.
        let serves = |replica: &ReplicaStatus| replica.blobs > 0 && replicas.contains(&replica.id);
        if !self.is_daemon && has_peers && status.replicas.iter().any(serves) {
            let (mut sent, mut quiet_since) = (self.manager.content_sent(), Instant::now());
            while quiet_since.elapsed() < SERVED && !left().is_zero() {
                tokio::time::sleep(SERVED / 20).await;
                let now = self.manager.content_sent();
                if now != sent {
                    (sent, quiet_since) = (now, Instant::now());
                }
            }
        }
        Ok(missing(&status))
    }
}

fn report_document(report: &SyncReport) -> Json {
    let error = match &report.outcome {
        SyncOutcome::Synced => None,
        SyncOutcome::Refused(Refusal::NotAvailable) => {
            Some("it does not have the replica, or not for this node".to_string())
        }
        SyncOutcome::Refused(_) => Some("it is busy: try again".to_string()),
        SyncOutcome::Unreachable { error, .. } => Some(format!("it cannot be reached: {error}")),
        SyncOutcome::OneWay => Some("entries go one way only: the replica there only pulls or only pushes".to_string()),
        SyncOutcome::TimedOut => Some("the time was up".to_string()),
        SyncOutcome::UnknownReplica => Some("the replica is not here".to_string()),
    };
    json!({
        "id": report.peer.map(|peer| peer.to_string()),
        "synced": report.outcome == SyncOutcome::Synced,
        "error": error,
        "sent": report.traffic.sent,
        "received": report.traffic.received,
        "bytes_sent": report.traffic.bytes_sent,
        "bytes_received": report.traffic.bytes_received,
        "messages": report.traffic.messages,
        "round_trips": report.traffic.round_trips,
    })
}
