//! How everything stands: status, why, peers, sync.

use std::{sync::Arc, time::Duration, time::SystemTime};

use serde_json::{Value as Json, json};
use sync_core::machine::{SyncOutcome, SyncReport, wire::Refusal};

use super::Node;
use crate::{error::Result, folder::plan::Mode};

impl Node {
    pub(super) async fn status(&self) -> Result<Json> {
        let status = self.manager.status().await?;
        let mut document = serde_json::to_value(&status).expect("a status is JSON");
        let running = self.folders.lock().expect("nobody panics with the folders");
        let folders = running.iter().map(|running| {
            json!({
                "path": running.path,
                "replica": running.replica.to_string(),
                "read_only": running.mode == Mode::ReadOnly,
                "problems": running.folder.problems().list().len(),
            })
        });
        document["folders"] = folders.collect();
        Ok(document)
    }

    pub(super) async fn why(&self) -> Result<Json> {
        let obstacles = self.manager.why().await?;
        let mut documents: Vec<Json> =
            obstacles.iter().map(|obstacle| serde_json::to_value(obstacle).expect("an obstacle is JSON")).collect();
        let running = self.folders.lock().expect("nobody panics with the folders");
        for problem in running.iter().flat_map(|running| running.folder.problems().list()) {
            let since = problem.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            documents.push(json!({
                "subject": problem.subject,
                "cause": problem.cause,
                "since": u64::try_from(since.as_micros()).unwrap_or(u64::MAX),
                "next_try": null,
                "advice": problem.advice,
            }));
        }
        Ok(json!({ "obstacles": documents }))
    }

    pub(super) async fn peers(&self) -> Result<Json> {
        let peers = self.manager.peers().await?;
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
        let mut tasks = tokio::task::JoinSet::new();
        for id in replicas {
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
        let synced = peers.iter().all(|peer| peer["synced"] == json!(true));
        Ok(json!({ "synced": synced, "peers": peers }))
    }
}

fn report_document(report: &SyncReport) -> Json {
    let error = match &report.outcome {
        SyncOutcome::Synced => None,
        SyncOutcome::Refused(Refusal::NotAvailable) => {
            Some("it does not have the replica, or not for this node".to_string())
        }
        SyncOutcome::Refused(_) => Some("it is busy: try again".to_string()),
        SyncOutcome::Unreachable(error) => Some(format!("it cannot be reached: {error}")),
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
        "round_trips": report.traffic.round_trips,
    })
}
