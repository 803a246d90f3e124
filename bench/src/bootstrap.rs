//! A fresh node joins and gets everything; each side is a process of its own.

use std::time::Instant;

use sync_core::{manager::Access, model::Ticket};

use crate::{
    Result,
    child::{self, Side},
    node::{LONG, node, traffic},
};

/// The side that has the entries.
pub async fn serve(n: u64, commit: u64, random: bool) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let place = dir.path().join("a");
    let path = place.to_str().ok_or("a temporary directory with a plain name")?;
    let keys = if random { "random" } else { "ordered" };
    let mut filling = Side::start(["fill", path, &n.to_string(), &commit.to_string(), keys])?;
    filling.figures().await?;
    filling.end().await?;
    let a = node(&place).await?;
    let left = a.open_replica(*a.replicas().await?.first().ok_or("a replica is there")?).await?;
    // What serving adds is counted from here, over all rounds: the one that warms up has its share too.
    let fresh = contest::memory_mb("VmRSS");
    let (mut round, mut highest) = (0, fresh);
    while contest::next_round().is_some() {
        round += 1;
        let ticket = left.share(Access::WRITE).await?.to_string();
        let place = dir.path().join(format!("b{round}"));
        let place = place.to_str().ok_or("a temporary directory with a plain name")?;
        let mut other = Side::start(["join", &ticket, place])?;
        let mut figures = other.figures().await?;
        let serving_cpu = contest::cpu_of_round();
        let joining_cpu = figures.iter().find(|(name, _)| name == "joining_cpu_s").map_or(0.0, |(_, cpu)| *cpu);
        figures.push(("serving_cpu_s".into(), serving_cpu));
        figures.push(("cpu_s".into(), serving_cpu + joining_cpu));
        other.end().await?;
        let peak = contest::memory_mb("VmHWM");
        highest = peak.max(highest);
        figures.push(("serving_peak_mb".into(), peak));
        figures.push(("serving_extra_mb".into(), highest - fresh));
        figures.push(("serving_after_mb".into(), contest::memory_mb("VmRSS")));
        let entries = figures.iter().find(|(name, _)| name == "entries").map(|(_, value)| *value);
        if entries.is_none_or(|entries| entries < n as f64) {
            return Err(format!("{entries:?} of {n} came").into());
        }
        let figures: Vec<_> = figures.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        contest::report(&figures);
    }
    Ok(())
}

/// The side that joins: says what it cost.
pub async fn join() -> Result<()> {
    let ticket: Ticket = contest::argument(2);
    let b = node(contest::argument::<std::path::PathBuf>(3).as_path()).await?;
    let peer = ticket.peer.ok_or("a ticket names its peer")?;
    contest::begin();
    let before = contest::memory_mb("VmRSS");
    let started = Instant::now();
    let right = b.join(ticket).await?;
    b.wait_synced(right.id(), peer, LONG).await?;
    let seconds = started.elapsed().as_secs_f64();
    let traffic = traffic(&b).await?;
    let peak = contest::memory_mb("VmHWM");
    child::say(&[
        ("seconds", seconds),
        ("bytes", (traffic.bytes_received + traffic.bytes_sent) as f64),
        ("messages", traffic.messages as f64),
        ("entries", traffic.received as f64),
        ("peak_mb", peak),
        ("extra_mb", peak - before),
        ("joining_cpu_s", contest::cpu_seconds()),
    ]);
    child::until_the_end().await;
    Ok(())
}
