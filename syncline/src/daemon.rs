//! `syncline up`: the node that keeps running.

use std::{path::Path, sync::Arc, time::Instant};

use serde_json::json;
use sync_core::{PeerAddress, manager::Replica, model::Ticket};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    cli::Up,
    data_dir::{DataDir, LOCK_INTERVAL, Lock, WAIT_FOR_ANSWER, WAIT_FOR_LOCK, write_whole},
    error::{CliError, Result},
    folder::{
        checks::{Missing, Shareable},
        guard::Permission,
    },
    made::Made,
    node::{Listen, Node, StoreKind, parse_ticket},
    output::{Output, say},
    progress,
    request::Request,
    socket::{self, Client},
};

/// Runs a node until it is told to end.
pub async fn run(data: DataDir, up: Up, asked_replica: Option<String>, output: Output) -> Result<()> {
    // What can be said without touching anything comes first.
    let asked: Vec<Listen> = up.listen.iter().map(|text| text.parse()).collect::<Result<_>>()?;
    let kind: StoreKind = up.store.parse()?;
    if let Some(ticket) = &up.join {
        parse_ticket(ticket)?;
    }
    // From here on a signal ends the node in good order.
    let mut signals = Signals::new()?;
    let is_new = !data.exists();
    let (lock, made) = tokio::select! {
        claimed = claim(&data) => claimed?,
        () = signals.next() => return Ok(()),
    };
    let permission = if up.allow_mass_delete { Permission::Given } else { Permission::Ask };
    let node = Node::open(data.clone(), lock, kind, permission, true).await?;
    let mut made = Some(made);
    let ran = tokio::select! {
        ran = serve(&node, &data, &up, &asked, asked_replica.as_deref(), is_new, output, &mut made) => ran,
        () = signals.next() => Ok(()),
    };
    socket::remove(&data);
    let ended = node.shutdown().await;
    drop(node);
    if ran.is_ok() {
        made.into_iter().for_each(Made::keep);
    }
    ran.and(ended)
}

/// Takes the data directory. A command has it for a moment, and a process that was killed for as long as the kernel
/// takes to end it: those are waited for, a node that answers is not. A socket alone answers nothing, for the kernel
/// takes connections to it until its process is gone.
async fn claim(data: &DataDir) -> Result<(Lock, Made)> {
    let deadline = Instant::now() + WAIT_FOR_LOCK;
    loop {
        if let Some(claimed) = data.claim()? {
            return Ok(claimed);
        }
        let asked = async { answers(data).await.unwrap_or(false) };
        if Instant::now() >= deadline || tokio::time::timeout(WAIT_FOR_ANSWER, asked).await == Ok(true) {
            return Err(data.held());
        }
        tokio::time::sleep(LOCK_INTERVAL).await;
    }
}

/// Whether a node answers there.
async fn answers(data: &DataDir) -> Option<bool> {
    let mut client = Client::connect(data).await?;
    client.ask(&Request::Why { replica: None }).await.ok()?;
    Some(client.next().await.ok()?.is_some())
}

#[allow(clippy::too_many_arguments)]
async fn serve(
    node: &Arc<Node>,
    data: &DataDir,
    up: &Up,
    asked: &[Listen],
    asked_replica: Option<&str>,
    is_new: bool,
    output: Output,
    made_data: &mut Option<Made>,
) -> Result<()> {
    let missing = if up.join.is_some() { Missing::Make } else { Missing::Refuse };
    let shareable = up.folder.as_deref().map(|folder| node.check_folder(folder, missing)).transpose()?;
    let folder = shareable.as_ref().map(|shareable| shareable.path.clone());
    let listen = choose_addresses(node, asked)?;
    node.register_transports(&listen).await?;
    let addresses = node.accept(!asked.is_empty()).await?;
    let texts = up.listen.clone();
    node.change_settings(|settings| {
        if !texts.is_empty() {
            settings.listen = texts;
        }
    })?;
    let replica = choose_replica(node, up, asked_replica, folder.as_deref()).await?;
    if let Some(folder) = &folder {
        node.bind(folder, &replica, up.read_only)?;
    }
    let ticket = node.standing_ticket(&replica).await?;
    let listener = socket::listen(data)?;
    if let Some(Shareable { path, lock, made }) = shareable {
        // The one that was asked for must work.
        node.start_folder(&path, lock).await?;
        made.keep();
    }
    node.start_folders().await?;
    announce(node, up, folder.as_deref(), &replica, &addresses, ticket.as_ref(), output)?;
    // Others rely on what was announced: from now on it stays, however this process ends.
    made_data.take().into_iter().for_each(Made::keep);
    tracing::info!(node = %node.manager().node_id().short(), is_new, "ready");
    let shown = progress::show(node.clone(), replica.id());
    tokio::select! {
        () = socket::serve(listener, node.clone()) => {}
        () = shown => {}
    }
    Ok(())
}

/// What was asked for, or what was asked for the last time, or one of each.
fn choose_addresses(node: &Node, asked: &[Listen]) -> Result<Vec<Listen>> {
    if !asked.is_empty() {
        return Ok(asked.to_vec());
    }
    let remembered: Vec<Listen> = node.settings().listen.iter().map(|text| text.parse()).collect::<Result<_>>()?;
    Ok(if remembered.is_empty() { Listen::ALL.to_vec() } else { remembered })
}

/// The replica of the ticket, the one that was named, that of the folder, the one that is here, or a new one.
async fn choose_replica(node: &Arc<Node>, up: &Up, asked: Option<&str>, folder: Option<&Path>) -> Result<Replica> {
    let bound = folder.and_then(|folder| node.bound_replica(folder));
    if let Some(ticket) = &up.join {
        let invited = parse_ticket(ticket)?.replica;
        if asked.is_some_and(|asked| !invited.to_string().starts_with(&asked.to_ascii_lowercase())) {
            return Err(CliError::usage(format!(
                "the ticket is for the replica {}: leave out --replica, or take another ticket",
                invited.short()
            )));
        }
        if let (Some(bound), Some(folder)) = (bound, folder)
            && bound != invited
        {
            return Err(CliError::failed(format!(
                "the folder {} belongs to the replica {} already: choose another folder, or leave out --join",
                folder.display(),
                bound.short()
            )));
        }
        return node.join(ticket).await;
    }
    if asked.is_some() {
        return node.replica(asked).await;
    }
    if let (Some(bound), Some(folder)) = (bound, folder) {
        if node.manager().replicas().await?.contains(&bound) {
            return Ok(node.manager().open_replica(bound).await?);
        }
        // A new replica in its place would be a new node in silence.
        let way_out = match node.kind() {
            StoreKind::Redb => {
                "restore the data directory from a copy, or join again with --join and a ticket of \
                                another device"
            }
            StoreKind::Memory => "leave out --store mem, or choose another directory with --data",
        };
        return Err(CliError::failed(format!(
            "the folder {} belongs to the replica {}, which is not in this store: {way_out}",
            folder.display(),
            bound.short()
        )));
    }
    match node.manager().replicas().await?.first() {
        Some(first) if folder.is_none() => Ok(node.manager().open_replica(*first).await?),
        _ => Ok(node.manager().create_replica().await?),
    }
}

fn announce(
    node: &Node,
    up: &Up,
    folder: Option<&Path>,
    replica: &Replica,
    addresses: &[PeerAddress],
    ticket: Option<&Ticket>,
    output: Output,
) -> Result<()> {
    let ticket = ticket.map(Ticket::to_string);
    let document = json!({
        "node_id": node.manager().node_id().to_string(),
        "addresses": addresses.iter().map(PeerAddress::as_str).collect::<Vec<_>>(),
        "replica": replica.id().to_string(),
        "folder": folder,
        "ticket": ticket,
    });
    output.show(&document, |document| {
        let mut lines = vec![format!("node     {}", text(&document["node_id"]))];
        for (at, address) in addresses.iter().enumerate() {
            lines.push(format!("{} {address}", if at == 0 { "address " } else { "        " }));
        }
        lines.push(format!("replica  {}", text(&document["replica"])));
        if let Some(folder) = folder {
            lines.push(format!("folder   {}", folder.display()));
        }
        match &ticket {
            Some(ticket) => lines.push(format!("ticket   {ticket}")),
            None => lines.push("ticket   this node may not invite: ask the replica's owner for tickets".into()),
        }
        lines.join("\n")
    })?;
    if output == Output::Text {
        say("running: end it with Ctrl-C");
    }
    if let Some(path) = &up.ready_file {
        let bytes = serde_json::to_vec_pretty(&document).expect("the document is JSON");
        write_whole(path, &bytes)
            .map_err(|error| CliError::io(format!("the ready file {} cannot be written", path.display()), &error))?;
    }
    Ok(())
}

fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The signals that end a node in good order.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let of = |kind| signal(kind).map_err(|error| CliError::io("signals cannot be received", &error));
        Ok(Self {
            interrupt: of(SignalKind::interrupt())?,
            terminate: of(SignalKind::terminate())?,
            hang_up: of(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    /// The kernel may need a moment to take apart a process that was killed, and takes connections to its socket meanwhile.
    #[tokio::test]
    async fn a_start_waits_for_whoever_has_the_data_directory_and_does_not_answer() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::choose(Some(dir.path())).unwrap();
        let (lock, made) = data.claim().unwrap().unwrap();
        made.keep();
        let dying = socket::listen(&data).unwrap();
        let mut starting = std::pin::pin!(claim(&data));
        tokio::select! {
            biased;
            claimed = &mut starting => panic!("it has not waited: {claimed:?}"),
            accepted = dying.accept() => drop(accepted.unwrap()),
        }
        drop((dying, lock));
        starting.await.unwrap().1.keep();
    }

    /// The story: what the first `up` had made went away with everything that was in it, the owner's key too, when
    /// the process panicked after days.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_announced_stays_however_the_node_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (data, ready) = (DataDir::choose(Some(&dir.path().join("data"))).unwrap(), dir.path().join("ready"));
        let listen = ["--listen", "quic://127.0.0.1:0", "--ready-file", ready.to_str().unwrap(), "--json"];
        let Command::Up(up) = Cli::parse_from([&["syncline", "up"][..], &listen].concat()).command else {
            panic!("it is `up`")
        };
        let asked: Vec<Listen> = up.listen.iter().map(|text| text.parse().unwrap()).collect();
        let (lock, made) = data.claim().unwrap().unwrap();
        let node = Node::open(data.clone(), lock, StoreKind::Redb, Permission::Ask, true).await.unwrap();
        let mut made = Some(made);
        let is_ready = async {
            while !ready.exists() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            // The ready file comes first, so that the next step of the node is the one after it.
            biased;
            ran = serve(&node, &data, &up, &asked, None, true, Output::Json, &mut made) => panic!("{ran:?}"),
            () = is_ready => {}
        }
        // As unwinding does.
        drop((made, node));
        assert!(data.exists() && data.file("store.redb").exists());
    }
}
