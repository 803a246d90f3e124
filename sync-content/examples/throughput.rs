//! How fast content goes in, through a download, and out, with every sync in place.
//!
//! `cargo run --release -p sync-content --example throughput [DIR] [MIB]`

use std::{error::Error, path::PathBuf, time::Instant};

use sync_content::{Checkpoint, ContentDir, export, quiet};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let base = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let base = base.join(format!("throughput-{}", std::process::id()));
    let mib: usize = arguments.next().map_or(Ok(1024), |mib| mib.parse())?;
    let report = |what: &str, since: Instant| {
        let seconds = since.elapsed().as_secs_f64();
        println!("{what:<44} {seconds:>6.2} s {:>7.0} MiB/s", mib as f64 / seconds);
    };

    std::fs::create_dir_all(&base)?;
    let source = base.join("source");
    let mut bytes = vec![0; mib << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    std::fs::write(&source, &bytes)?;
    drop(bytes);

    let (theirs, ours) = (ContentDir::open(base.join("theirs"))?, ContentDir::open(base.join("ours"))?);
    let start = Instant::now();
    let there = theirs.publish(vec![theirs.stage_path(&source, &mut quiet)?])?.remove(0);
    report("import (read, hash, write, sync)", start);

    let server = theirs.reader(there.hash, there.len, &there.outboard)?;
    let start = Instant::now();
    let mut encoded = 0;
    for piece in server.encode(sync_content::GroupRanges::all(there.len))? {
        encoded += piece?.len();
    }
    report("encode (read, prove)", start);

    let start = Instant::now();
    let partial = ours.download(Checkpoint::start(there.hash, there.len))?;
    let mut last = Instant::now();
    let mut checkpoints = 0;
    while let Some(mut claim) = partial.claim(64) {
        for piece in server.encode(claim.groups().into())? {
            claim.push(&piece?)?;
        }
        if partial.checkpoint_due(last.elapsed()) {
            partial.checkpoint()?;
            last = Instant::now();
            checkpoints += 1;
        }
    }
    let here = ours.publish(vec![partial.finish()?])?.remove(0);
    report(&format!("encode and download, {checkpoints} checkpoints"), start);
    assert_eq!(here, there);

    let start = Instant::now();
    export::export(&ours.reader(here.hash, here.len, &here.outboard)?, &base.join("target"), &mut quiet)?;
    report("export (read, prove, write, sync)", start);
    println!("encoding: {:.3} % more than the bytes", (encoded as f64 / there.len as f64 - 1.0) * 100.0);

    let small: Vec<u8> = vec![3; 20 * 1024];
    let count = 5_000_u32;
    let start = Instant::now();
    for batch in 0..count / 250 {
        let stage = |number: u32| {
            let mut bytes = small.clone();
            bytes[..4].copy_from_slice(&(batch * 250 + number).to_le_bytes());
            ours.stage_bytes(&bytes)
        };
        ours.publish((0..250).map(stage).collect::<Result<_, _>>()?)?;
    }
    println!("small contents of 20 KiB, batches of 250: {:.0}/s", f64::from(count) / start.elapsed().as_secs_f64());
    std::fs::remove_dir_all(&base)?;
    Ok(())
}
