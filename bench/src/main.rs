//! Syncline as a contestant: each work is prepared once and done a round at a time, as `bench/run` asks (see
//! the crate `contest`). By hand: `yes 100 | head -5 | bench differ 100000`.

mod blob;
mod bootstrap;
mod child;
mod differ;
mod disk;
mod hub;
mod idle;
mod limits;
mod live;
mod node;
mod streams;
mod wire;
mod write;

use contest::argument;

/// Any error ends a contestant with its text.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const USAGE: &str = "\
bench bootstrap N COMMIT (ordered|random)   a fresh node gets all N entries, commits of COMMIT
bench differ N (latest|dial|single|cold|old|old-first)     as many entries more on either side of N as the line says, no position known
bench known N                               the same, and both know what the other had
bench live N                                N writes, one after the other, each until the other node shows it
bench burst N WRITERS                       N writes of one entry, until the other node shows them all
bench write N                               local writes into N entries
bench write-quiet N                         one transaction of 10,000 into N entries, nothing else
bench blob MIB (quic|iroh|http)             a content over a transport
bench stream MIB (quic|quic-ours|iroh|websocket)   a raw stream
bench fan CONNECTIONS                       a small message over each of so many raw connections
bench hub PEERS                             one write reaches all peers of a hub
bench idle N                                a node that holds N entries and does nothing
bench reconciled N D                        the same after it has reconciled D + D with another
bench nothing                               a process that does nothing
bench (verify|seal|hash|redb|entries|sync|echo)    what the machine can do
bench disk ...                              what the disk alone takes for a folder: see src/disk.rs";

#[tokio::main]
async fn main() -> Result<()> {
    let work = std::env::args().nth(1).unwrap_or_default();
    match work.as_str() {
        "bootstrap" => bootstrap::serve(argument(2), argument(3), argument::<String>(4) == "random").await,
        "join" => bootstrap::join().await,
        "differ" => differ::unknown(argument(2), argument(3)).await,
        "known" => differ::known(argument(2)).await,
        "live" => live::latency(argument(2)).await,
        "burst" => live::burst(argument(2), argument(3)).await,
        "write" => write::local(argument(2)).await,
        "write-quiet" => write::quiet(argument(2)).await,
        "blob" => blob::blob(argument(2), argument(3)).await,
        "stream" => streams::stream(argument(2), argument(3)).await,
        "echo" => streams::echo().await,
        "fan" => streams::fan(argument(2)).await,
        "fan-in" => streams::fan_in(argument(2), argument(3), argument(4)).await,
        "disk" => disk::disk(),
        "hub" => hub::hub(argument(2)).await,
        "spokes" => hub::spokes(argument(2), argument(3)).await,
        "idle" => idle::idle(argument(2)).await,
        "fill" => idle::make(argument(2), argument(3), argument(4), argument::<String>(5) == "random").await,
        "open" => idle::open(argument(2)).await,
        "reconciled" => idle::reconciled(argument(2), argument(3)).await,
        "reconcile" => idle::reconcile(argument(2), argument(3), argument(4), argument(5)).await,
        "nothing" => idle::nothing().await,
        "empty" => idle::empty().await,
        "verify" => limits::verify(),
        "seal" => limits::seal(),
        "hash" => limits::hash(),
        "redb" => limits::redb(),
        "entries" => limits::entries(),
        "sync" => limits::sync(),
        _ => Err(USAGE.into()),
    }
}
